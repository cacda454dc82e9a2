"""A lease tells other processes that a store is in use; the system releases it when its holder dies."""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

from insight.data.store.format import MANIFEST_NAME


class StoreLease:
    """While an object of this class lives, no process evicts the store.

    The lease is a shared lock on the manifest, which works where the cache is read-only, too. (Libraries for
    file locks offer exclusive locks on files of their own, which need a place to write.) The manifest's time
    of change is the time of the last use.

    Args:
        descriptor: The open manifest, with its lock.
    """

    def __init__(self, descriptor: int) -> None:
        # Closing gives the lock back, unless a process that was forked since holds the same file open.
        weakref.finalize(self, os.close, descriptor)


def take_lease(folder: Path) -> StoreLease | None:
    """A lease on the store in ``folder``, or ``None`` where there is no store or no such lock."""
    if sys.platform == "win32":
        return None  # Windows removes no file that is mapped, and moves none that is open.
    path = folder / MANIFEST_NAME
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        try:
            _lock(descriptor, exclusive=False)
            # The store may have been evicted between the opening and the lock.
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
    """Whether nobody has a lease on the store in ``folder``; inside the block nobody can take one."""
    try:
        descriptor = os.open(folder / MANIFEST_NAME, os.O_RDWR)
    except OSError:
        yield True  # Without a manifest the store cannot be opened at all.
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
        """Wait for a shared lock (exclusive ones last for moments only), or take a free exclusive one."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
        except BlockingIOError:
            return False
        return True
