"""Encode each distinct piece of text once: repeated pieces are looked up and gathered by array operations."""

from __future__ import annotations

import re
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from sys import getsizeof
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from insight.runtime.numbers import require_number

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRY_BYTES = 200
"""Memory of an entry besides its key and value: table slot, links and size."""
# Characters whose segments are held at once; a segment takes about sixty bytes besides its text.
_GROUP_CHARACTERS = 1 << 20
# Longer segments (text without spaces, encoded data) rarely repeat and would evict those that do.
_LONGEST_KEPT = 64
_ID = np.dtype(np.int32)


class CacheStatistics(NamedTuple):
    """The content of a cache, and how many requested keys it had; ``evictions`` counts dropped entries."""

    hits: int
    misses: int
    evictions: int
    num_entries: int
    num_bytes: int


class LRUCache(Generic[K, V]):
    """A cache bounded by entries and bytes; the least recently used entries are dropped first.

    A lock makes all methods thread-safe. Pickling keeps only the bounds.

    Args:
        max_entries: Largest number of entries, at least 0; 0 stores nothing.
        max_bytes: Largest total size by ``size_of``; a larger entry is not stored.
        size_of: Size in bytes of a key and its value; ``None`` means :func:`shallow_size`.
    """

    def __init__(
        self, max_entries: int, max_bytes: int, size_of: Callable[[Any, Any], int] | None = None
    ) -> None:
        for name, bound in (("max_entries", max_entries), ("max_bytes", max_bytes)):
            require_number(name, bound, 1 << 17, whole=True, at_least=0)
        self._settings = (max_entries, max_bytes, size_of)
        self._max_entries, self._max_bytes, self._size_of = max_entries, max_bytes, size_of or shallow_size
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()  # from the oldest use to the newest
        self._num_bytes = 0
        self._hits = self._misses = self._evictions = 0

    def __getstate__(self) -> tuple[Any, ...]:
        return self._settings

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value of ``key``, which counts as just used, or ``None``."""
        return self.get_many((key,))[0]

    def get_many(self, keys: Sequence[K]) -> list[V | None]:
        """:meth:`get` of each key, in order, as one atomic step."""
        with self._lock:
            entries = self._entries
            found = [entries.get(key) for key in keys]
            for key, entry in zip(keys, found, strict=True):
                if entry is not None:
                    entries.move_to_end(key)
            num_missing = found.count(None)
            self._misses += num_missing
            self._hits += len(found) - num_missing
        return [None if entry is None else entry[0] for entry in found]

    def put(self, key: K, value: V) -> None:
        """Store ``value``, replacing an older one."""
        self.put_many(((key, value),))

    def put_many(self, items: Iterable[tuple[K, V]]) -> None:
        """:meth:`put` of each pair, in order, as one atomic step."""
        sized = [(key, value, self._size_of(key, value)) for key, value in items]
        with self._lock:
            entries = self._entries
            for key, value, num_bytes in sized:
                if key in entries:
                    self._num_bytes -= entries.pop(key)[1]
                if num_bytes <= self._max_bytes and self._max_entries:
                    entries[key] = (value, num_bytes)
                    self._num_bytes += num_bytes
                    self._evict(self._max_entries, self._max_bytes)

    def clear(self) -> None:
        """Drop all entries; the counts stay, and dropped entries do not count as evictions."""
        with self._lock:
            self._entries.clear()
            self._num_bytes = 0

    def shrink(self, share: float) -> None:
        """Drop the least recently used entries until ``share`` of the current bytes is left.

        The bounds stay, so the cache may grow again.
        """
        require_number("share", share, "0.5 to drop half", at_least=0, at_most=1)
        with self._lock:
            self._evict(self._max_entries, int(self._num_bytes * share))

    def statistics(self) -> CacheStatistics:
        """Consistent counts and sizes."""
        with self._lock:
            counts = self._hits, self._misses, self._evictions
            return CacheStatistics(*counts, len(self._entries), self._num_bytes)

    def _evict(self, max_entries: int, max_bytes: int) -> None:
        while len(self._entries) > max_entries or self._num_bytes > max_bytes:
            self._num_bytes -= self._entries.popitem(last=False)[1][1]
            self._evictions += 1


def shallow_size(key: Any, value: Any) -> int:
    """Bytes of a key, a value and the entry itself, without the objects that they refer to."""
    return getsizeof(key) + getsizeof(value) + ENTRY_BYTES


class SegmentEncoder:
    """Encodes texts for tokenizers whose ids do not depend on the text beyond certain places.

    A text is cut at those places into segments, mostly a word with the space before it. Natural text repeats
    its segments, so only a few per cent must be encoded; the ids of the whole text are then one gather.

    Args:
        pattern: Matches the consecutive segments of a text, without gaps.
        encode: Returns the ids of each segment.
        cache: The ids of each segment as bytes (int32), for later calls.
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
        """The ids of all pieces, int64 ``(tokens,)``, and the start of each, int64 ``(pieces + 1,)``."""
        encoded = [self._encode_group(group) for group in _groups(pieces)] or [self._encode_group([])]
        ids, lengths = (np.concatenate(arrays) for arrays in zip(*encoded, strict=True))
        return ids, np.concatenate([[0], np.cumsum(lengths)])

    def _encode_group(self, pieces: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        segments: list[str] = []
        ends = [0]
        for piece in pieces:
            segments += self._pattern.findall(piece)
            ends.append(len(segments))
        distinct = list(dict.fromkeys(segments))
        numbers = {segment: number for number, segment in enumerate(distinct)}
        rows = np.fromiter(map(numbers.__getitem__, segments), np.int64, len(segments))

        encoded = self._encode_distinct(distinct)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded)) // _ID.itemsize
        table = np.frombuffer(b"".join(encoded), dtype=_ID)
        starts = np.cumsum(lengths) - lengths

        row_lengths = lengths[rows]
        row_ends = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(row_lengths, out=row_ends[1:])
        # Token t of the result, in row r, is token t - row_ends[r] of the segment of row r.
        source = np.repeat(starts[rows] - row_ends[:-1], row_lengths) + np.arange(row_ends[-1])
        return table[source].astype(np.int64), np.diff(row_ends[ends])

    def _encode_distinct(self, segments: list[str]) -> list[bytes]:
        found = self.cache.get_many(segments)
        missing = [segment for segment, known in zip(segments, found, strict=True) if known is None]
        if not missing:
            return [ids for ids in found if ids is not None]
        encoded = (array(_ID.char, ids).tobytes() for ids in self._encode_segments(missing))
        new = dict(zip(missing, encoded, strict=True))
        self.cache.put_many(pair for pair in new.items() if len(pair[0]) <= _LONGEST_KEPT)
        pairs = zip(segments, found, strict=True)
        return [new[segment] if known is None else known for segment, known in pairs]


def segment_pattern(boundaries: str) -> re.Pattern[str]:
    """A pattern of the segments of a text that may be cut between a character and ``boundaries`` after it.

    White space before a word belongs to its segment. Python counts more characters as white space than the
    tokenizer library does; no cut is made at those, and all white space of the library is white space here.
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
