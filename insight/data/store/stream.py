"""Token ids mapped from several files and read as one stream, without holding on to the pages of memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from insight.data.store.ragged import ragged_range

# Mapped pages count as memory of the process, and reading one place maps up to 2 MB around it (Linux maps
# what its cache holds in one piece). So they are given back after so many places; the file stays in the
# system's cache, and the next read only maps its page again.
_PLACES_HELD = 32
# What is smaller may stay.
_SMALL_BYTES = 1 << 25


class MappedStream:
    """Arrays one after the other.

    Args:
        arrays: One-dimensional, of one type; where they are memory-mapped, their pages are given back now
            and then.
    """

    def __init__(self, arrays: Sequence[npt.NDArray[Any]]) -> None:
        self._arrays = list(arrays)
        lengths = [len(array) for array in self._arrays]
        self._starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])
        self._is_small = sum(array.nbytes for array in self._arrays) <= _SMALL_BYTES
        self._places_held = 0

    def __len__(self) -> int:
        return int(self._starts[-1])

    def start_of(self, part: int) -> int:
        """Where an array begins in the stream."""
        return int(self._starts[part])

    def range(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Elements ``start`` to ``stop`` (excluded), int64; both inside the stream."""
        out = np.empty(stop - start, dtype=np.int64)
        done = 0
        part = int(np.searchsorted(self._starts, start, side="right")) - 1
        while done < len(out):
            first = start + done - int(self._starts[part])
            found = self._arrays[part][first : first + len(out) - done]
            out[done : done + len(found)] = found
            done += len(found)
            part += 1
        self._give_back(1)
        return out

    def windows(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
        """``length`` elements from each start: int64 ``(len(starts), length)``; all inside the stream."""
        out = np.empty((len(starts), length), dtype=np.int64)
        parts = self._parts_of(starts)
        is_inside = starts + length <= self._starts[parts + 1]
        for part, rows in self._groups(np.where(is_inside, parts, -1)):
            # One strided view of every window, one gather of the chosen ones.
            view = np.lib.stride_tricks.sliding_window_view(self._arrays[part], length)
            out[rows] = view[starts[rows] - self._starts[part]]
        for row in np.flatnonzero(np.logical_not(is_inside)).tolist():
            out[row] = self.range(int(starts[row]), int(starts[row]) + length)
        return out

    def pieces(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """``lengths[i]`` elements from ``starts[i]``, one piece after the other: int64, flat."""
        ends = np.cumsum(lengths, dtype=np.int64)
        out = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.int64)
        parts = self._parts_of(starts)
        is_inside = starts + lengths <= self._starts[parts + 1]
        for part, chosen in self._groups(np.where(is_inside, parts, -1)):
            sizes = lengths[chosen]
            places = ragged_range(ends[chosen] - sizes, sizes)
            out[places] = self._arrays[part][ragged_range(starts[chosen] - self._starts[part], sizes)]
        for piece in np.flatnonzero(np.logical_not(is_inside)).tolist():
            start, length = int(starts[piece]), int(lengths[piece])
            out[ends[piece] - length : ends[piece]] = self.range(start, start + length)
        return out

    def _parts_of(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """In which array each position lies; the end of the stream counts to the last one."""
        parts = np.searchsorted(self._starts, positions, side="right") - 1
        return np.minimum(parts, len(self._arrays) - 1)

    def _groups(self, parts: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Which places to read together: of one array, and few enough to be held at once.

        Args:
            parts: The array of each place; -1 for one that is left out.
        """
        size = max(1, len(parts)) if self._is_small else _PLACES_HELD
        for part in np.unique(parts[parts >= 0]).tolist():
            of_part = np.flatnonzero(parts == part)
            for first in range(0, len(of_part), size):
                group = of_part[first : first + size]
                yield part, group
                self._give_back(len(group))

    def _give_back(self, num_places: int) -> None:
        self._places_held += num_places
        if self._is_small or self._places_held < _PLACES_HELD:
            return
        self._places_held = 0
        for array in self._arrays:
            if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                array.base.madvise(mmap.MADV_DONTNEED)
