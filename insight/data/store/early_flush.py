"""Bytes go to the disk while more are being made, so that publishing has little left to wait for."""

from __future__ import annotations

import os
import threading
from typing import IO

_FLUSHED_BYTES = 1 << 25
_synchronize = getattr(os, "fdatasync", os.fsync)  # macOS has the second only


class EarlyFlush:
    """Flushes a file that grows, in a thread, each time so many bytes more are there; one flush at a time.

    A flush that fails is told to nobody who flushes after it, so what it found is kept and raised.

    Args:
        file: Open for writing, and written by one thread.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._num_bytes = 0
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def wrote(self, num_bytes: int) -> None:
        """Note that so many bytes more were written.

        Raises:
            OSError: An earlier flush has failed.
        """
        self._num_bytes += num_bytes
        if self._num_bytes < _FLUSHED_BYTES or (self._thread and self._thread.is_alive()):
            return
        self.finish()
        self._num_bytes = 0
        self._file.flush()
        self._thread = threading.Thread(target=self._flush, name="early-flush", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait for a flush that is under way; only then may the file be closed.

        Raises:
            OSError: A flush has failed.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def _flush(self) -> None:
        try:
            _synchronize(self._file.fileno())
        except OSError as error:
            self._error = error
