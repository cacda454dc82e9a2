"""One line at the bottom of a terminal that is drawn over and over, while other output passes above it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from typing import Any, TextIO

from insight.callbacks.progress_text import Style

_ERASE_TO_END = "\x1b[K"


class TerminalLine:
    """Draws a line in place on ``stream``.

    Every update is a single write that erases only what is right of the new text, so nothing flickers.
    While it is open, ``sys.stdout`` and ``sys.stderr`` are wrapped where they are the same terminal: what
    anybody prints goes above the line instead of into it.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.text = ""
        # Somebody has printed half a line: drawing now would overwrite it.
        self._interrupted = False
        self._wrapped: dict[str, TextIO] = {}

    @property
    def width(self) -> int:
        """Columns that can be written without wrapping; asked every time, since windows are resized."""
        try:
            columns = os.get_terminal_size(self.stream.fileno()).columns
        except (OSError, ValueError, AttributeError):
            columns = 0
        return max(1, (columns or shutil.get_terminal_size().columns) - 1)

    def open(self) -> None:
        """Begin to guard what others print."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if name not in self._wrapped and not isinstance(stream, _Above) and stream.isatty():
                self._wrapped[name] = stream
                setattr(sys, name, _Above(stream, self))

    def draw(self, text: str) -> None:
        """Show ``text``, which must fit into :attr:`width`, in place of what was shown."""
        if text != self.text and not self._interrupted:
            self._write(text)
        self.text = text

    def close(self) -> None:
        """Erase the line and give the terminal back."""
        if self.text and not self._interrupted:
            self._write("")
        self.text, self._interrupted = "", False
        for name, stream in self._wrapped.items():
            if isinstance(getattr(sys, name), _Above):
                setattr(sys, name, stream)
        self._wrapped = {}

    def pass_through(self, stream: TextIO, text: str) -> None:
        """Write somebody else's ``text`` above the line."""
        if self.text and not self._interrupted:
            self._write("")
        stream.write(text)
        stream.flush()
        self._interrupted = not text.endswith("\n")
        if self.text and not self._interrupted:
            self._write(self.text)

    def _write(self, text: str) -> None:
        # The cursor rests at the first column: output of a library that kept the unwrapped stream begins
        # there, and not at the end of our text.
        with contextlib.suppress(OSError):  # a closed terminal must not end the training
            self.stream.write(f"\r{text}{_ERASE_TO_END}\r")
            self.stream.flush()


class _Above:
    """Stands in for ``sys.stdout`` or ``sys.stderr``."""

    def __init__(self, stream: TextIO, line: TerminalLine) -> None:
        self._stream = stream
        self._line = line

    def write(self, text: str) -> int:
        if text:
            self._line.pass_through(self._stream, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for text in lines:
            self.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def is_terminal(stream: TextIO) -> bool:
    """Whether a line can be redrawn on ``stream``."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def style_of(stream: TextIO) -> Style:
    """What ``stream`` can show; no colour where ``NO_COLOR`` is set (no-color.org)."""
    try:
        "━╸─·".encode(stream.encoding or "ascii")
        unicode = True
    except (UnicodeEncodeError, LookupError):
        unicode = False
    return Style(unicode, color=not os.environ.get("NO_COLOR"))
