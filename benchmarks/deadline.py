"""A limit on the whole of a benchmark: nothing is begun after it, and what was measured is kept."""

from __future__ import annotations

import time


class Deadline:
    """Counts from its making.

    Args:
        minutes: How long measurements may be begun.
    """

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def is_over(self) -> bool:
        """Whether it is; says so."""
        over = time.monotonic() > self._end
        if over:
            print("deadline: the same command goes on where this one ends", flush=True)
        return over
