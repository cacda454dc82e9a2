"""One builder at a time: a lock on a file that the system releases when its holder dies."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_POLL_SECONDS = 0.05


@contextlib.contextmanager
def file_lock(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock on ``path`` inside the block.

    The file stays when the lock is released: removing it would let two processes hold "the" lock.

    Args:
        path: A file that is made if it is not there.
        on_wait: Called once if another process holds the lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _try_lock(descriptor):
            on_wait()
            while not _try_lock(descriptor):
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        # Closing releases the lock.
        os.close(descriptor)


@contextlib.contextmanager
def free_lock(path: Path) -> Iterator[bool]:
    """Hold the lock on ``path`` inside the block if nobody else does; whether that is so.

    Args:
        path: A file that is made if it is not there.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield _try_lock(descriptor)
    finally:
        os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
