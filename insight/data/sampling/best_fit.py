"""Best-fit decreasing for many small whole numbers: items of one length are placed together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from insight.runtime.errors import ConfigError


def best_fit_decreasing(lengths: npt.NDArray[np.int64], capacity: int) -> npt.NDArray[np.int64]:
    """The bin of every item: the longest items first, each into the fullest bin that has room for it.

    Needs at most 11/9 of the bins of the best packing (Johnson 1973). Equal items and equally full bins
    are told apart by their numbers alone, so they are handled as groups: the time is that of a sort, and
    some thousand steps for each number of bits of ``capacity``, however many items there are.

    Args:
        lengths: int64 ``(items,)``, each in ``1..capacity``.
        capacity: Sum of lengths that a bin holds.

    Returns:
        int64 ``(items,)``, numbers from 0 without a gap.

    Raises:
        ConfigError: An item is empty or larger than a bin.
    """
    if len(lengths) and not (lengths.min() >= 1 and lengths.max() <= capacity):
        raise ConfigError(
            f"lengths from {lengths.min()} to {lengths.max()}: each must lie in 1..{capacity}",
            "split longer items",
        )
    by_length = np.argsort(-lengths, kind="stable")
    counts = np.bincount(lengths, minlength=capacity + 1)
    bins = np.empty(len(lengths), dtype=np.int64)
    rooms = _OpenBins()
    num_bins = done = 0
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            room = rooms.smallest(length)
            # The bin that just took an item of this length is the fullest one again while it has room.
            if room is None:
                room = capacity
                chosen = np.arange(num_bins, num_bins - (-left // (room // length)))
                num_bins += len(chosen)
            else:
                chosen = rooms.take(room, -(-left // (room // length)))
            each = room // length
            num_placed = min(left, each * len(chosen))
            bins[by_length[done : done + num_placed]] = np.repeat(chosen, each)[:num_placed]
            in_last = num_placed - each * (len(chosen) - 1)
            rooms.add(room - each * length, chosen[:-1])
            rooms.add(room - in_last * length, chosen[-1:])
            done, left = done + num_placed, left - num_placed
    return bins


class _OpenBins:
    """Bins that have room left, by how much."""

    def __init__(self) -> None:
        self._bins: dict[int, list[npt.NDArray[np.int64]]] = {}
        self._rooms = 0  # bit r is set where some bin has room r

    def smallest(self, length: int) -> int | None:
        """The least room of a bin that takes ``length``, or ``None``."""
        fitting = self._rooms >> length
        return length + (fitting & -fitting).bit_length() - 1 if fitting else None

    def add(self, room: int, bins: npt.NDArray[np.int64]) -> None:
        """Keep bins that have this room; full ones are forgotten."""
        if room and len(bins):
            self._bins.setdefault(room, []).append(bins)
            self._rooms |= 1 << room

    def take(self, room: int, most: int) -> npt.NDArray[np.int64]:
        """At most ``most`` of the bins with exactly this room, at least one."""
        kept, taken = self._bins[room], []
        while kept and most:
            group = kept.pop()
            if len(group) > most:
                kept.append(group[most:])
                group = group[:most]
            taken.append(group)
            most -= len(group)
        if not kept:
            del self._bins[room]
            self._rooms &= ~(1 << room)
        return np.concatenate(taken)
