"""A lease tells other processes that a store is in use; the system releases it when its process dies."""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

from insight.data.store.format import MANIFEST_NAME


class StoreLease:
    """Protects a store from eviction while the object lives.

    The lease is a shared lock on the manifest, which also works in a read-only cache. (Libraries for file
    locks only offer exclusive locks on files of their own, which must be written.) The modification time of
    the manifest is the time of the last use.
    """

    def __init__(self, descriptor: int) -> None:
        # Closing releases the lock, unless a process forked since then holds the same open file.
        weakref.finalize(self, os.close, descriptor)


def take_lease(folder: Path) -> StoreLease | None:
    """Take a lease on the store in ``folder``; ``None`` if there is no store or locking is not supported."""
    if sys.platform == "win32":
        return None  # Windows does not remove mapped files or move open ones.
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
    """Whether no process has a lease on the store in ``folder``; none can take one inside the block."""
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
        """Wait for a shared lock (exclusive ones are held briefly), or try to take an exclusive one."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
        except BlockingIOError:
            return False
        return True
