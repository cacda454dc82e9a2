"""Numbers as people read them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable

import pytest

from insight.runtime import formats
from insight.runtime.formats import safe_text


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (formats.format_count, 1180, "1,180"),
        (formats.format_count, 4_261_120, "4.26 million"),
        (formats.format_count, 123_456, "123 thousand"),
        (formats.format_count, 7.1e9, "7.1 billion"),
        (formats.format_count, math.inf, "unknown"),
        (formats.format_bytes, 512, "512 bytes"),
        (formats.format_bytes, 2_951_120, "2.95 MB"),
        (formats.format_bytes, math.nan, "unknown"),
        (formats.format_duration, 2.34, "2.3 s"),
        (formats.format_duration, 59.6, "1 min 00 s"),
        (formats.format_duration, 151, "2 min 31 s"),
        (formats.format_duration, 3_599.7, "1 h 00 min"),
        (formats.format_duration, 86_400 * 2 + 3600, "2 d 1 h"),
        (formats.format_duration, -1, "unknown"),
        (formats.format_latency, 0.0123, "12.3 ms"),
        (formats.format_latency, 0.00084, "840 µs"),
        (formats.format_latency, 0.9999, "1 s"),
        (formats.format_latency, 0.0009999, "1 ms"),
        (formats.format_latency, 1234.0, "1,234 s"),
        (formats.format_latency, 0.0, "0 µs"),
        (formats.format_latency, math.nan, "unknown"),
        (formats.format_latency, -1.0, "unknown"),
        (formats.format_difference, 0.00284, "+0.0028"),
        (formats.format_difference, -0.00284, "-0.0028"),
        (formats.format_difference, -0.00001, "+0.0000"),
        (formats.format_value, 1.56234, "1.562"),
        (formats.format_value, 27.4, "27.40"),
        (formats.format_value, 0.0, "0"),
        (formats.format_value, 1e-7, "1.000e-07"),
        (formats.format_value, 1e300, "1.000e+300"),
        (formats.format_value, math.nan, "not a number"),
        (formats.format_value, -math.inf, "−∞"),
    ],
)
def test_format(function: Callable[[float], str], value: float, text: str) -> None:
    assert function(value) == text


def test_times() -> None:
    assert formats.format_time("2026-11-25T04:31:00Z") == "25 November 2026, 04:31 UTC"
    assert formats.format_time("yesterday") == "yesterday"
    assert formats.format_time(None) == "None"


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain\n\ttext — é 漢字 🙂", "plain\n\ttext — é 漢字 🙂"),
        ("\x1b[31mred\x00\x7f", "␛[31mred␀␡"),
        ("a\r\nb\rc", "a\nb␍c"),
        ("\u202eevil\u2028\x9b", "\ufffdevil\ufffd\ufffd"),
        ("\ud800x", "\ufffdx"),
        ("<b>", "<b>"),
    ],
)
def test_characters(text: str, safe: str) -> None:
    assert safe_text(text, 1000) == safe


def test_no_character_of_all_of_them_acts() -> None:
    every = "".join(chr(code) for code in range(0x3000)) + "\ud800\udfff\ufeff"
    safe = safe_text(every, len(every))
    assert not [c for c in safe if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\t"]
    assert not [
        c for c in safe if unicodedata.bidirectional(c) in ("RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI")
    ]
    safe.encode("utf-8")


def test_long_text_is_cut_with_a_note() -> None:
    assert safe_text("x" * 1_000_000, 10) == "xxxxxxxxxx … [999,990 more characters]"
    assert safe_text("x" * 10, 10) == "x" * 10
