"""Says from time to time how far a long encoding is; a short one says nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from insight.data.sources.formats import TextPart
from insight.runtime.messages import say


class EncodingProgress:
    """Counts bytes, and prints a line every ``interval`` seconds while there are some.

    Args:
        title: What is encoded.
        total_bytes: How much there is; ``None`` where nobody knows, as in compressed files.
        interval: Seconds between two lines.
        clock: Seconds that only rise.
    """

    def __init__(
        self,
        title: str,
        total_bytes: int | None = None,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title = title
        self._total = total_bytes
        self._interval = interval
        self._clock = clock
        self._started = self._last = clock()
        self._done = 0

    def advance(self, num_bytes: int) -> None:
        """Count what has been done."""
        self._done += num_bytes
        now = self._clock()
        if now - self._last >= self._interval:
            self._last = now
            say(self._line(now - self._started))

    def watch(self, parts: Iterable[TextPart]) -> Iterator[TextPart]:
        """The same parts; each counts when the next one is asked for."""
        for part in parts:
            yield part
            # About its bytes; an exact number would be another pass over the text.
            self.advance(len(part.text))

    def _line(self, seconds: float) -> str:
        done, rate = self._done / 1e6, self._done / 1e6 / max(seconds, 1e-9)
        if not self._total:
            return f"encoding {self._title}: {done:,.0f} MB of text, {rate:.0f} MB/s"
        share = min(1.0, self._done / self._total)
        return f"encoding {self._title}: {share:.0%} of {self._total / 1e6:,.0f} MB, {rate:.0f} MB/s"
