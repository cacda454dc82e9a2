"""Open plain and compressed files as one stream of bytes; damage is found, memory stays small."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from insight.runtime.errors import DataError

COMPRESSIONS = ("gz", "xz", "zst")


@contextlib.contextmanager
def open_source(path: Path, name: str, compression: str) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed as they are read.

    Args:
        path: The file.
        name: What messages call it.
        compression: ``""`` or one of ``COMPRESSIONS``.

    Raises:
        DataError: It cannot be read or is damaged; also for what is read inside the block.
    """
    if compression not in ("", *COMPRESSIONS):
        raise DataError(f"{name}: compression {compression!r} is unknown", f"use {', '.join(COMPRESSIONS)}")
    try:
        with _open(path, compression) as file:
            yield file
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{name}: damaged .{compression} file ({error})", "make or fetch it again") from error
    except OSError as error:
        raise DataError(
            f"{name}: cannot be read ({error.strerror or error})", "check the file and its permissions"
        ) from error


def _open(path: Path, compression: str) -> IO[bytes]:
    if compression == "gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if compression == "xz":
        return cast(IO[bytes], lzma.open(path, "rb"))
    if compression == "zst":
        return io.BufferedReader(_ZstandardReader(path), buffer_size=1 << 20)
    return open(path, "rb")


# A few bytes of a compressed file can stand for hundreds of times as many; what comes of so many is held.
_COMPRESSED_BYTES = 1 << 12


class _ZstandardReader(io.RawIOBase):
    """The decompressed bytes of a .zst file of one or more frames; a file cut short is an ``EOFError``."""

    def __init__(self, path: Path) -> None:
        import zstandard

        self._library = zstandard
        self._file = open(path, "rb")  # noqa: SIM115 (closed in close)
        self._frame: Any = None
        self._rest = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._rest or self._file.read(_COMPRESSED_BYTES)
            self._rest = b""
            if not data:
                if self._frame is not None:
                    raise EOFError("it ends in the middle of a frame")
                return 0
            if self._frame is None:
                self._frame = self._library.ZstdDecompressor().decompressobj()
            try:
                self._ready = memoryview(self._frame.decompress(data))
            except self._library.ZstdError as error:
                raise EOFError(str(error)) from error
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()
