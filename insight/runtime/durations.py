"""Lengths of time as people and schedulers write them."""

from __future__ import annotations

import math
import re

from insight.runtime.errors import ConfigError

_CLOCK = re.compile(r"(?:(?:(?P<days>\d+)-)?(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)")


def duration_in_seconds(option: str, value: float | str) -> float:
    """Seconds of a duration.

    Args:
        option: Where the value comes from, for the message.
        value: A number of seconds, or ``MM:SS``, ``HH:MM:SS`` or ``D-HH:MM:SS`` as SLURM writes it.

    Raises:
        ConfigError: It is neither, or not above 0.
    """
    seconds = _from_text(value) if isinstance(value, str) else float(value)
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ConfigError(
            f"{option}={value}: must be a positive time",
            "use seconds, or HH:MM:SS in quotes, for example 3600 or '01:00:00'",
        )
    return seconds


def _from_text(text: str) -> float:
    """``nan`` for what is no duration."""
    clock = _CLOCK.fullmatch(text.strip())
    if clock is None:
        try:
            return float(text)
        except ValueError:
            return math.nan
    days, hours, minutes, seconds = (
        int(clock[name] or 0) for name in ("days", "hours", "minutes", "seconds")
    )
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
