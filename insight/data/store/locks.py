"""One builder at a time: a lock on a file that the system releases when its holder dies."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from insight.data.store.format import MANIFEST_NAME

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


class StoreLease:
    """A store cannot be evicted while an object of this class holds it, in whichever process.

    The lock is on the manifest, so it works where the cache is read-only, too. When it was taken last is the
    manifest's time of change.

    Args:
        descriptor: The open manifest, with its lock.
    """

    def __init__(self, descriptor: int) -> None:
        # Closing gives the lock back, unless a process that was forked since holds the same file open.
        weakref.finalize(self, os.close, descriptor)


def take_lease(folder: Path) -> StoreLease | None:
    """A lease on the store in ``folder``, or ``None`` where there is no store, or no such locks."""
    if sys.platform == "win32":
        return None  # there no file that is mapped can be removed, and none that is open be moved
    path = folder / MANIFEST_NAME
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        try:
            _lock(descriptor, exclusive=False)
            # It may have been evicted between the opening and the lock.
            is_same = os.path.samestat(os.fstat(descriptor), os.stat(path))
        except OSError:
            os.close(descriptor)
            return None
        if is_same:
            with contextlib.suppress(OSError):
                os.utime(descriptor)
            return StoreLease(descriptor)
        os.close(descriptor)


@contextlib.contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Whether nobody holds the store in ``folder``; inside the block nobody can take it."""
    try:
        descriptor = os.open(folder / MANIFEST_NAME, os.O_RDWR)
    except OSError:
        yield True  # without a manifest it cannot be opened at all
        return
    try:
        yield _lock(descriptor, exclusive=True)
    finally:
        os.close(descriptor)


if sys.platform == "win32":

    def _lock(descriptor: int, *, exclusive: bool) -> bool:
        return True

else:
    import fcntl

    def _lock(descriptor: int, *, exclusive: bool) -> bool:
        """A shared lock, waited for (others exclude for moments only); or an exclusive one, if it is free."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
        except BlockingIOError:
            return False
        return True
