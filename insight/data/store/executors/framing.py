"""Messages on a pipe, each with its length before it, so that one that cannot be read spoils no other."""

from __future__ import annotations

from typing import IO

_LENGTH_BYTES = 8


def write_message(pipe: IO[bytes], data: bytes) -> None:
    """Send ``data``.

    Raises:
        OSError: The other side has gone.
    """
    pipe.write(len(data).to_bytes(_LENGTH_BYTES, "little") + data)
    pipe.flush()


def read_message(pipe: IO[bytes]) -> bytes:
    """What the other side sent.

    Raises:
        EOFError: It has gone.
    """
    return _read(pipe, int.from_bytes(_read(pipe, _LENGTH_BYTES), "little"))


def _read(pipe: IO[bytes], count: int) -> bytes:
    data = pipe.read(count)
    if len(data) < count:
        raise EOFError("the pipe has ended")
    return data
