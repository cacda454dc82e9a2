"""A time limit of a benchmark, after which no measurement starts; finished measurements are kept."""

from __future__ import annotations

import time


class Deadline:
    """A deadline ``minutes`` after its creation."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def is_over(self) -> bool:
        """Whether the time is over; prints a line if so."""
        over = time.monotonic() > self._end
        if over:
            print("deadline: the same command goes on where this one ends", flush=True)
        return over
