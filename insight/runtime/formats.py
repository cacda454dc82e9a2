"""Numbers written for people, and foreign text made safe to show."""

from __future__ import annotations

import math
import re
from datetime import datetime


def format_count(count: float) -> str:
    """A count: exact up to 99,999, then ``4.26 million``."""
    if not math.isfinite(count):
        return "unknown"
    if abs(count) < 100_000:
        return f"{count:,.0f}"
    words = {1e12: "trillion", 1e9: "billion", 1e6: "million"}
    return _with_unit(count, words) or f"{count / 1e3:.0f} thousand"


def format_bytes(count: float) -> str:
    """A size in decimal units: ``2.9 MB``."""
    if not math.isfinite(count):
        return "unknown"
    units = {1e12: "TB", 1e9: "GB", 1e6: "MB", 1e3: "kB"}
    return _with_unit(count, units) or f"{count:.0f} bytes"


def _with_unit(number: float, units: dict[float, str]) -> str:
    """Three digits with the largest unit that fits; a number that would round to 1000 takes the next one."""
    for factor, unit in units.items():
        if abs(number) >= 0.9995 * factor:
            return f"{number / factor:.3g} {unit}"
    return ""


def format_duration(seconds: float) -> str:
    """A duration in its two largest units: ``2 min 31 s``."""
    if not math.isfinite(seconds) or seconds < 0:
        return "unknown"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def format_latency(seconds: float) -> str:
    """A short time with three digits: ``840 µs``, ``12.3 ms``, ``1.05 s``."""
    if not math.isfinite(seconds) or seconds < 0:
        return "unknown"
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= 0.9995 * factor:
            return f"{seconds / factor:.3g} {unit}" if seconds < 999.5 * factor else f"{seconds:,.0f} s"
    return f"{seconds * 1e6:.3g} µs"


def format_difference(difference: float) -> str:
    """A difference with its sign and four decimals; a difference that rounds to zero is ``+0.0000``."""
    return f"{round(difference, 4) + 0.0:+.4f}"


def format_value(value: float) -> str:
    """A measured value with four significant digits; NaN and infinity are spelled out."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        digits = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
        return f"{value:,.{digits}f}"
    return f"{value:.3e}"


def format_time(text: object) -> str:
    """An ISO 8601 time as ``25 November 2026, 04:31 UTC``; any other text is returned unchanged."""
    try:
        time = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return str(text)
    zone = time.tzname() or ""
    return f"{time.day} {time:%B %Y, %H:%M}{' ' + zone if zone else ''}"


# Control characters become their picture (␛ for escape), so that they stay visible.
_PICTURES = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
_PICTURES[0x7F] = "\u2421"
# C1 controls, line separators, direction overrides (they reorder the text that a reader sees) and lone
# surrogates (UTF-8 cannot encode them).
_HARMFUL = re.compile("[\x80-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def safe_text(text: str, max_characters: int) -> str:
    """At most ``max_characters`` of ``text``, without characters that act on a terminal or a page.

    A note says how many characters are missing. The template escapes HTML, so this function does not.
    """
    missing = len(text) - max_characters
    text = text[:max_characters].replace("\r\n", "\n").translate(_PICTURES)
    text = _HARMFUL.sub("\ufffd", text)
    return f"{text} … [{missing:,} more characters]" if missing > 0 else text


def format_share(share: float) -> str:
    """A share between 0 and 1 in percent, with enough digits to tell it from 0 % and 100 %: ``99.9%``."""
    percent = 100 * share
    precision = min(percent, 100 - percent) / 200
    for digits in range(8):
        text = f"{percent:.{digits}f}"
        if abs(float(text) - percent) <= precision:
            break
    return f"{text}%"
