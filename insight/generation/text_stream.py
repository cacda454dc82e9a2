"""Token ids → text that is safe to print while it grows: whole characters, nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns bytes that arrive token by token into text.

    A character whose bytes are not complete yet is held back, and so is an ending that could become a stop
    string.

    Args:
        stop: Strings that end the text; they are not part of it.

    Attributes:
        stopped: Whether a stop string has been met.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False

    def push(self, data: bytes) -> str:
        """The text that has become certain with ``data``."""
        return self._release(self._decoder.decode(data))

    def finish(self) -> str:
        """What was held back, once nothing more will come; broken characters become U+FFFD."""
        released = self._release(self._decoder.decode(b"", final=True))
        rest, self._held = ("" if self.stopped else self._held), ""
        return released + rest

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            released, self._held, self.stopped = self._held[: min(found)], "", True
            return released
        keep = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        cut = len(self._held) - keep
        released, self._held = self._held[:cut], self._held[cut:]
        return released


def _overlap(text: str, stop: str) -> int:
    """Length of the longest ending of ``text`` that begins ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if stop.startswith(text[-length:])), 0)
