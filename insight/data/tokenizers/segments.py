"""Encode each distinct piece of text once: what repeats is looked up, and arrays do the rest."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from insight.data.tokenizers.lru_cache import LRUCache

# Characters whose segments are held at once; a segment takes some sixty bytes beside its text.
_GROUP_CHARACTERS = 1 << 20
# Longer segments (text without spaces, encoded data) hardly repeat and would push out those that do.
_LONGEST_KEPT = 64
_ID = np.dtype(np.int32)


class SegmentEncoder:
    """Texts → ids for tokenizers whose ids do not depend on what stands beyond certain places.

    A text is cut at those places into segments, a word with the space before it for the most part. Natural
    text repeats its segments, so a few per cent of them have to be encoded at all; the ids of the whole are
    then one gather.

    Args:
        pattern: Matches the segments of a text, one after the other and without gaps.
        encode: The ids of each segment.
        cache: Segment → its ids as bytes (int32); holds what later calls will meet again.
    """

    def __init__(
        self,
        pattern: re.Pattern[str],
        encode: Callable[[list[str]], list[list[int]]],
        cache: LRUCache[str, bytes],
    ) -> None:
        self._pattern = pattern
        self._encode_segments = encode
        self.cache = cache

    def encode(self, pieces: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The ids of all pieces, int64 ``(tokens,)``, and where each begins, int64 ``(pieces + 1,)``."""
        ids: list[npt.NDArray[np.int64]] = []
        lengths: list[npt.NDArray[np.int64]] = []
        for group in _groups(pieces):
            group_ids, group_lengths = self._encode_group(group)
            ids.append(group_ids)
            lengths.append(group_lengths)
        offsets = np.zeros(len(pieces) + 1, dtype=np.int64)
        if not ids:
            return np.zeros(0, dtype=np.int64), offsets
        np.cumsum(np.concatenate(lengths), out=offsets[1:])
        return np.concatenate(ids), offsets

    def _encode_group(self, pieces: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The ids of a group and the number of ids of each piece."""
        segments: list[str] = []
        ends = np.zeros(len(pieces) + 1, dtype=np.int64)
        for index, piece in enumerate(pieces):
            segments += self._pattern.findall(piece)
            ends[index + 1] = len(segments)
        distinct = list(dict.fromkeys(segments))
        numbers = dict(zip(distinct, range(len(distinct)), strict=True))
        rows = np.fromiter(map(numbers.__getitem__, segments), np.int64, len(segments))

        encoded = self._encode_distinct(distinct)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded)) // _ID.itemsize
        table = np.frombuffer(b"".join(encoded), dtype=_ID)
        starts = np.cumsum(lengths) - lengths

        row_lengths = lengths[rows]
        row_ends = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(row_lengths, out=row_ends[1:])
        # Token t of the result, in row r, is token t - row_ends[r] of the segment that r shows.
        source = np.repeat(starts[rows] - row_ends[:-1], row_lengths) + np.arange(row_ends[-1])
        return table[source].astype(np.int64), np.diff(row_ends[ends])

    def _encode_distinct(self, segments: list[str]) -> list[bytes]:
        found = self.cache.get_many(segments)
        missing = [segment for segment, known in zip(segments, found, strict=True) if known is None]
        if not missing:
            return [ids for ids in found if ids is not None]
        encoded = [array(_ID.char, ids).tobytes() for ids in self._encode_segments(missing)]
        new = dict(zip(missing, encoded, strict=True))
        self.cache.put_many(pair for pair in new.items() if len(pair[0]) <= _LONGEST_KEPT)
        pairs = zip(segments, found, strict=True)
        return [new[segment] if known is None else known for segment, known in pairs]


def segment_pattern(boundaries: str) -> re.Pattern[str]:
    """Matches the segments of a text that may be cut between a character and white space behind it.

    White space before a word belongs to its segment. Python counts more characters as white space than the
    tokenizer library does; those are never cut at, and what Python calls no white space is none there either.

    Args:
        boundaries: The white space before which a cut changes no id, as characters of a regular expression.
    """
    other = rf"[^\S{boundaries}]"
    return re.compile(rf"\s*\S+(?:{other}\s*\S*)*|\s+")


def _groups(pieces: Sequence[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for piece in pieces:
        group.append(piece)
        size += len(piece)
        if size >= _GROUP_CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group
