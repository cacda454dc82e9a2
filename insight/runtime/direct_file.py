"""A new file whose bytes go to the disk past the system's cache: little work for a processor, no memory."""

from __future__ import annotations

import errno
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

DISK_BLOCK = 4096
"""Bytes: places in memory and in the file, and lengths, that every disk takes are multiples of it."""
CAN_WRITE_DIRECTLY = hasattr(os, "O_DIRECT")
_HELD_BYTES = 1 << 23
# What is shorter is gathered: a disk takes about as long for it as for its neighbours with it.
_WRITTEN_IN_PLACE_BYTES = 1 << 20

# A place in memory or in the file, or a file system, from which or to which nothing goes past the cache.
_REFUSED = (errno.EINVAL, errno.EFAULT, errno.EOPNOTSUPP)


class DirectFile:
    """Opened for writing from its beginning to its end; after :meth:`flush` it holds all that was written.

    What is long and begins at a multiple of :data:`DISK_BLOCK`, in memory and in the file, is written from
    where it is; the rest is gathered first. A file system that cannot do that (``O_DIRECT``, open(2)) gets
    the bytes through the cache.

    Args:
        path: Must not exist.

    Raises:
        OSError: It cannot be made; writing raises it too.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        # One is filled while the other is written.
        self._held, self._spare = (memoryview(mmap.mmap(-1, _HELD_BYTES)) for _ in range(2))
        self._num_held = 0
        self._thread: ThreadPoolExecutor | None = ThreadPoolExecutor(1, thread_name_prefix="direct-file")
        self._under_way: Future[None] | None = None
        self._is_direct = self._set_direct(True)

    @property
    def is_direct(self) -> bool:
        """Whether bytes still go past the cache."""
        return self._is_direct

    def fileno(self) -> int:
        return self._file

    def write(self, data: Any) -> int:
        """Take bytes, all of them; returns how many."""
        rest = memoryview(data).cast("B")
        num_bytes = len(rest)
        if not self._is_direct:
            self._write_now(rest)
            return num_bytes
        lies_right = not self._num_held % DISK_BLOCK and not _address(rest) % DISK_BLOCK
        if num_bytes >= _WRITTEN_IN_PLACE_BYTES and lies_right:
            whole = num_bytes - num_bytes % DISK_BLOCK
            self._write_now(rest[:whole])
            rest = rest[whole:]
        while rest:
            num_taken = min(len(rest), _HELD_BYTES - self._num_held)
            self._held[self._num_held : self._num_held + num_taken] = rest[:num_taken]
            self._num_held += num_taken
            rest = rest[num_taken:]
            if self._num_held == _HELD_BYTES:
                self._write_beside()
        return num_bytes

    def flush(self) -> None:
        """Hand everything to the system. After an end that is no whole block, the rest goes to its cache."""
        self._wait()
        if self._num_held % DISK_BLOCK:
            self._is_direct = self._set_direct(False)
        self._write_now()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()
        file, self._file = self._file, -1  # a number that may soon be another file's
        os.close(file)

    def __enter__(self) -> DirectFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _write_now(self, following: memoryview = memoryview(b"")) -> None:
        """Write what is held, and what follows it from where it is."""
        self._wait()
        held, self._num_held = self._held[: self._num_held], 0
        self._write_all([held, following])

    def _write_beside(self) -> None:
        """Begin to write what is held."""
        self._wait()
        self._held, self._spare, self._num_held = self._spare, self._held, 0
        if self._thread is not None:
            try:
                self._under_way = self._thread.submit(self._write_all, [self._spare])
                return
            except RuntimeError:  # no thread can be started: too many, or the program is ending
                self._thread.shutdown(cancel_futures=True)  # what was not begun would be done a second time
                self._thread = None
        self._write_all([self._spare])

    def _wait(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def _write_all(self, parts: list[memoryview]) -> None:
        while parts := [part for part in parts if part]:
            try:
                num_written = os.writev(self._file, parts)
            except OSError as error:
                # A place that refuses it only now, or the place that a write which was cut short has left.
                if error.errno not in _REFUSED or not self._is_direct:
                    raise
                self._is_direct = self._set_direct(False)
                continue
            for index, part in enumerate(parts):
                parts[index] = part[num_written:]
                num_written = max(0, num_written - len(part))

    def _set_direct(self, is_direct: bool) -> bool:
        """Set how bytes are written; returns how they are from now on."""
        import fcntl  # only where the system has it

        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_DIRECT if is_direct else flags & ~os.O_DIRECT)
        except OSError:  # this file system cannot
            return False
        return is_direct


def _address(data: memoryview) -> int:
    return int(np.frombuffer(data, np.uint8).ctypes.data)
