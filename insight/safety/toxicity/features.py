"""Text → hashed n-grams of its words and letters."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_LETTERS = (3, 4, 5)
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\n+")
# A network may write without full stops; a long run of words is judged in pieces like sentences.
_MOST_WORDS = 40


def hashed_ngrams(text: str, num_buckets: int) -> npt.NDArray[np.int64]:
    """The buckets that the n-grams of a text fall into, ascending and each once.

    Words, pairs of neighbouring words, and 3 to 5 letters within a word with its ends marked, in lower
    case (feature hashing: Weinberger et al. 2009, arXiv 0902.2206; here without signs). CRC-32 is the same
    on every machine, unlike Python's ``hash``.

    Args:
        text: Anything.
        num_buckets: A power of two.
    """
    buckets = {zlib.crc32(ngram.encode("utf-8", "replace")) & (num_buckets - 1) for ngram in _ngrams(text)}
    return np.array(sorted(buckets), dtype=np.int64)


def sentences(text: str) -> list[str]:
    """A text in pieces of at most 40 words, cut where sentences and lines end; without empty ones."""
    pieces = []
    for sentence in _SENTENCE_END.split(text):
        words = list(_WORD.finditer(sentence))
        for start in range(0, len(words), _MOST_WORDS):
            last = words[min(start + _MOST_WORDS, len(words)) - 1]
            pieces.append(sentence[words[start].start() : last.end()])
    return pieces


def _ngrams(text: str) -> Iterator[str]:
    before = "^"
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold().replace("’", "'")):
        yield word
        yield f"{before} {word}"
        before = word
        marked = f"<{word}>"
        for length in _LETTERS:
            for start in range(len(marked) - length + 1):
                yield f"-{marked[start : start + length]}"
    yield f"{before} $"
