"""Passages of a text: a beginning to continue, and how the text really goes on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_WORD_BEGINS = re.compile(r"(?<=\s)\S")
_FARTHEST = 200


class Passage(NamedTuple):
    """A place in a text.

    Attributes:
        before: Begins and ends with whole words.
        after: What follows, beginning with the white space between two words.
    """

    before: str
    after: str


def cut_passages(
    texts: Sequence[str],
    num_passages: int,
    num_before: int,
    num_after: int,
    least_after: int,
    generator: np.random.Generator,
) -> list[Passage]:
    """Passages spread evenly over the texts: one at a random place of each of ``num_passages`` equal parts.

    Args:
        texts: Documents.
        num_passages: How many; fewer where the texts are too short for passages that do not overlap.
        num_before: Most characters before the cut.
        num_after: Most characters after it.
        least_after: A document must have so many characters left.
        generator: Chooses the places.

    Returns:
        In the order of the texts; empty where no document is long enough.
    """
    rooms = [max(0, len(text) - num_before - least_after) for text in texts]
    ends = np.cumsum(rooms, dtype=np.int64)
    total = int(ends[-1]) if rooms else 0
    count = min(num_passages, total // (num_before + least_after) or (1 if total else 0))
    passages = []
    for index, jitter in enumerate(generator.random(count).tolist()):
        place = min(total - 1, int((index + jitter) * total / count))
        which = int(np.searchsorted(ends, place, side="right"))
        passages.append(_cut(texts[which], place - int(ends[which]) + rooms[which], num_before, num_after))
    return passages


def _cut(text: str, start: int, num_before: int, num_after: int) -> Passage:
    found = _WORD_BEGINS.search(text, start, start + _FARTHEST) if start else None
    first = found.start() if found else start
    cut = first + num_before
    # Back to the end of a word, so that no token of the text reaches over the cut.
    while cut > first + 1 and not (text[cut : cut + 1].isspace() and not text[cut - 1].isspace()):
        cut -= 1
    if cut == first + 1:
        cut = first + num_before
    return Passage(text[first:cut], text[cut : cut + num_after])
