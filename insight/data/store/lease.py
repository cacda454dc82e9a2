"""A lease tells other processes that a store is in use; the system releases it when its process dies.

A lease is a shared lock on the manifest, which also works in a read-only cache. (Libraries for file locks
only offer exclusive locks on files of their own, which must be written.) The modification time of the
manifest is the time of the last use.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

from insight.data.store.format import MANIFEST_NAME


def take_lease(holder: object, folder: Path) -> None:
    """Protect the store in ``folder`` from eviction while ``holder`` lives, if the system can lock files."""
    if sys.platform == "win32":
        return  # Windows does not remove mapped files or move open ones.
    path = folder / MANIFEST_NAME
    with contextlib.suppress(OSError):
        while True:
            descriptor = os.open(path, os.O_RDONLY)
            # Closing releases the lock, unless a process forked since then holds the same open file.
            release = weakref.finalize(holder, os.close, descriptor)
            _lock(descriptor, exclusive=False)
            # The store may have been evicted between the opening and the lock.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                os.utime(descriptor)
                return
            release()


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
