"""The places where a text may be cut without changing any id, and texts cut there into pieces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from insight.runtime.errors import TokenizerError
from insight.runtime.numbers import require_number

PIECE_CHARACTERS = 1 << 14
"""Approximate length in characters of the pieces of long texts for training and encoding."""
# Encoding one word takes far more memory than its characters; a longer word is data, not text.
_MOST_UNCUT_CHARACTERS = 1 << 25
# A place to cut is first searched for this close to the end of a chunk.
_SEARCHED_CHARACTERS = 1 << 12

# Letters and digits since early versions of Unicode, so that every library classifies them so, and which stay
# so in every normalization: ASCII, Latin, Greek, Cyrillic, kana, Han, Hangul.
_LETTERS = (
    r"0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u012f\u0131-\u013e\u0141-\u01ba"
    r"\u0391-\u03a1\u03a3-\u03ce\u0400-\u0481\u3041-\u3094\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
)
# Ends of sentences and brackets of scripts without spaces; they stay punctuation when normalized.
_WIDE_PUNCTUATION = r"\u3001\u3002\u300c-\u300f\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f"


def safe_cut(boundaries: str) -> re.Pattern[str]:
    """A pattern of the places where a text may be cut, which depend only on the characters on both sides.

    A text may be cut before ``boundaries``, the white space (as characters of a regular expression) before
    which the rule of a tokenizer allows it, and, whatever the rule, between a letter or digit and a line
    break or wide punctuation: all rules end a word there, none looks further ahead, the library joins none.
    """
    return re.compile(rf"(?<=\S)(?=[{boundaries}])|(?<=[{_LETTERS}])(?=[\r\n{_WIDE_PUNCTUATION}])")


EVERY_RULE_CUT = safe_cut(r" \t")
"""The places where a text may be cut under every known rule."""


def cut_text(
    text: str, num_characters: int = PIECE_CHARACTERS, place: re.Pattern[str] = EVERY_RULE_CUT
) -> Iterator[str]:
    """Cut ``text`` into pieces of ``num_characters`` (1 or more) at least, only where ``place`` matches."""
    require_number("num_characters", num_characters, 1, whole=True, at_least=1)
    start = 0
    while len(text) - start > 2 * num_characters:
        match = place.search(text, start + num_characters)
        if match is None:
            break
        yield text[start : match.start()]
        start = match.start()
    yield text[start:]


def cut_stream(
    chunks: Iterable[str], num_characters: int, place: re.Pattern[str] = EVERY_RULE_CUT
) -> Iterator[str]:
    """Cut the text that consists of ``chunks`` as :func:`cut_text` does, holding little more than one piece.

    A ``TokenizerError`` says that millions of characters have no place to cut.
    """
    require_number("num_characters", num_characters, 1, whole=True, at_least=1)
    held = ""
    searched = 0
    for chunk in chunks:
        if len(chunk) <= 2 * num_characters:
            # Most chunks are one piece; this copies as little as possible.
            match = place.search(chunk, max(1, len(chunk) - _SEARCHED_CHARACTERS))
            if match is not None and len(held) + match.start() >= num_characters:
                yield held + chunk[: match.start()]
                held, searched = chunk[match.start() :], 0
                continue
        held += chunk
        start = 0
        while len(held) - start > 2 * num_characters:
            match = place.search(held, max(start + num_characters, searched))
            if match is None:
                # Whether there is a place after the last character depends on the next chunk.
                searched = len(held)
                break
            yield held[start : match.start()]
            start = match.start()
        held, searched = held[start:], max(0, searched - start)
        if len(held) > 2 * num_characters + _MOST_UNCUT_CHARACTERS:
            problem = f"{len(held):,} characters without white space behind a word, so they cannot be cut"
            raise TokenizerError(problem, "break them into lines, or use ByteTokenizerConfig")
    yield held
