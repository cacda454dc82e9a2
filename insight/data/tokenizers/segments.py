"""Encode each distinct piece of text once: what repeats is looked up, and arrays do the rest."""

from __future__ import annotations

import re
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from sys import getsizeof
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from insight.runtime.errors import ConfigError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRY_BYTES = 200
"""What an entry takes beside its key and value: its place in the table, its neighbours, its size and time."""


@dataclass(frozen=True)
class CacheStatistics:
    """What a cache holds and how well it served.

    Attributes:
        hits: Keys that were asked for and there.
        misses: Keys that were asked for and not there, or too old.
        evictions: Entries dropped to keep the bounds, by ``resize`` and by ``shrink``.
        expirations: Entries dropped because they were too old.
        num_entries: Entries now.
        num_bytes: Their size now, as the cache counts it.
    """

    hits: int
    misses: int
    evictions: int
    expirations: int
    num_entries: int
    num_bytes: int


class LRUCache(Generic[K, V]):
    """Key → value, bounded by entries and by bytes; the least recently used entries go first.

    All methods are safe to call from several threads. Nothing runs in the background: entries that are too
    old are dropped when they are asked for or when their turn comes. A pickled cache arrives empty, with the
    same settings: its entries carry times of this machine's clock, and whoever receives it makes its own.

    Args:
        max_entries: Most entries, at least 0; 0 stores nothing.
        max_bytes: Most bytes, by ``size_of``; a single entry that is larger is not stored.
        time_to_live: Seconds after which an entry counts as missing; ``None`` for no limit. Reading an entry
            does not make it younger, writing it does.
        size_of: Bytes that a key and its value take.
        clock: Seconds that never go back.

    Raises:
        ConfigError: A bound is negative, or ``time_to_live`` is not above 0.
    """

    def __init__(
        self,
        max_entries: int,
        max_bytes: int,
        time_to_live: float | None = None,
        size_of: Callable[[Any, Any], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _require_bounds(max_entries, max_bytes)
        if time_to_live is not None and not time_to_live > 0:
            raise ConfigError(
                f"time_to_live={time_to_live}: must be above 0 seconds", "use None to keep entries for ever"
            )
        self._settings = (time_to_live, size_of, clock)
        self._time_to_live = float("inf") if time_to_live is None else time_to_live
        self._size_of = shallow_size if size_of is None else size_of
        self._clock = clock
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        # Value, bytes, and when it is too old; plain tuples, since text brings new entries by the million.
        self._entries: OrderedDict[K, tuple[V, int, float]] = OrderedDict()
        self._num_bytes = 0
        self._hits = self._misses = self._evictions = self._expirations = 0

    def __getstate__(self) -> tuple[Any, ...]:
        return (self._max_entries, self._max_bytes, *self._settings)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def max_entries(self) -> int:
        """Most entries."""
        return self._max_entries

    @property
    def max_bytes(self) -> int:
        """Most bytes."""
        return self._max_bytes

    def get(self, key: K) -> V | None:
        """The value of ``key``, which counts as used now; ``None`` if there is none."""
        return self.get_many((key,))[0]

    def get_many(self, keys: Sequence[K]) -> list[V | None]:
        """:meth:`get` of each key, in order, as one step that no other thread comes between."""
        with self._lock:
            now = self._clock()
            return [self._get(key, now) for key in keys]

    def put(self, key: K, value: V) -> None:
        """Store ``value``, in place of an older one."""
        self.put_many(((key, value),))

    def put_many(self, items: Iterable[tuple[K, V]]) -> None:
        """:meth:`put` of each pair, in order, as one step."""
        size_of = self._size_of
        sized = [(key, value, size_of(key, value)) for key, value in items]
        with self._lock:
            entries, max_entries, max_bytes = self._entries, self._max_entries, self._max_bytes
            dies_at = self._clock() + self._time_to_live
            for key, value, num_bytes in sized:
                if key in entries:
                    self._drop(key)
                if num_bytes <= max_bytes:
                    entries[key] = (value, num_bytes, dies_at)
                    self._num_bytes += num_bytes
                    if self._num_bytes > max_bytes or len(entries) > max_entries:
                        self._evict(max_entries, max_bytes)

    def clear(self) -> None:
        """Forget every entry; the counters stay, and cleared entries count as no eviction."""
        with self._lock:
            self._entries.clear()
            self._num_bytes = 0

    def resize(self, max_entries: int | None = None, max_bytes: int | None = None) -> None:
        """Change the bounds (``None`` keeps one), dropping what no longer fits.

        Raises:
            ConfigError: A bound is negative.
        """
        with self._lock:
            entries = self._max_entries if max_entries is None else max_entries
            size = self._max_bytes if max_bytes is None else max_bytes
            _require_bounds(entries, size)
            self._max_entries, self._max_bytes = entries, size
            self._evict(entries, size)

    def shrink(self, share: float) -> None:
        """Drop the least recently used entries until ``share`` of the bytes held now are left.

        The bounds stay: when memory is plentiful again the cache may grow back.

        Raises:
            ConfigError: ``share`` is not between 0 and 1.
        """
        if not 0 <= share <= 1:
            raise ConfigError(f"share={share}: must lie between 0 and 1", "use 0.5 to drop half")
        with self._lock:
            self._evict(self._max_entries, int(self._num_bytes * share))

    def statistics(self) -> CacheStatistics:
        """Counters and size, all of one moment."""
        with self._lock:
            return CacheStatistics(
                self._hits,
                self._misses,
                self._evictions,
                self._expirations,
                len(self._entries),
                self._num_bytes,
            )

    def _get(self, key: K, now: float) -> V | None:
        entry = self._entries.get(key)
        if entry is not None and entry[2] <= now:
            self._drop(key)
            self._expirations += 1
            entry = None
        if entry is None:
            self._misses += 1
            return None
        self._hits += 1
        self._entries.move_to_end(key)
        return entry[0]

    def _drop(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._num_bytes -= entry[1]

    def _evict(self, max_entries: int, max_bytes: int) -> None:
        while self._entries and (len(self._entries) > max_entries or self._num_bytes > max_bytes):
            _, entry = self._entries.popitem(last=False)
            self._num_bytes -= entry[1]
            self._evictions += 1


def shallow_size(key: Any, value: Any) -> int:
    """Bytes of a key, a value and the entry itself; what they refer to is not followed."""
    return getsizeof(key) + getsizeof(value) + ENTRY_BYTES


def _require_bounds(max_entries: int, max_bytes: int) -> None:
    for name, bound in (("max_entries", max_entries), ("max_bytes", max_bytes)):
        if isinstance(bound, bool) or not isinstance(bound, int) or bound < 0:
            raise ConfigError(f"{name}={bound!r}: must be a whole number of at least 0", "0 stores nothing")


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
