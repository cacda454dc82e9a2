"""Text that acts on a terminal or a page is made visible instead."""

from __future__ import annotations

import unicodedata

import pytest

from insight.runtime.formats import safe_text


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
