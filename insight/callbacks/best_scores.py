"""The best validations of a run: which values they had, and at which steps."""

from __future__ import annotations

import math
from collections.abc import Iterable


class BestScores:
    """The best values so far, best first; of equal ones the earlier counts.

    Args:
        mode: ``min`` if smaller is better, ``max`` if larger is.
        num_kept: How many.

    Attributes:
        entries: Pairs of value and step.
    """

    def __init__(self, mode: str, num_kept: int) -> None:
        self.num_kept = num_kept
        self.entries: list[tuple[float, int]] = []
        self._sign = 1 if mode == "min" else -1

    @property
    def best(self) -> tuple[float, int] | None:
        """Value and step of the best, ``None`` before there is one."""
        return self.entries[0] if self.entries else None

    @property
    def steps(self) -> set[int]:
        """Steps of all."""
        return {step for _, step in self.entries}

    def admits(self, value: float) -> bool:
        """Whether ``value`` is among the best, so that :meth:`add` would keep it."""
        if math.isnan(value):
            return False
        has_room = len(self.entries) < self.num_kept
        return has_room or self._sign * value < self._sign * self.entries[-1][0]

    def add(self, value: float, step: int) -> bool:
        """Take in a value that :meth:`admits` lets through; returns whether it is the best."""
        others = [entry for entry in self.entries if entry[1] != step]
        self._take([*others, (value, step)])
        return self.entries[0] == (value, step)

    def restore(self, entries: Iterable[tuple[float, int]]) -> None:
        """Go on from entries that were kept, perhaps more than are kept now."""
        self._take(list(entries))

    def _take(self, entries: list[tuple[float, int]]) -> None:
        # Sorting is stable, so that of equal values the one that came first stays in front.
        self.entries = sorted(entries, key=lambda entry: self._sign * entry[0])[: self.num_kept]
