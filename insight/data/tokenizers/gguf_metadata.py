"""The metadata at the front of a GGUF file; tensors are not touched, and nothing is executed.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from insight.runtime.errors import TokenizerError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# What no honest file exceeds; a damaged or hostile one ends here and not in all of the memory.
_MOST_PAIRS = 1 << 16
_MOST_ITEMS = 1 << 24
_MOST_STRING_BYTES = 1 << 24
_MOST_DEPTH = 4


def read_gguf_metadata(path: str | Path, prefix: str = "") -> dict[str, Any]:
    """The values whose names begin with ``prefix``: numbers, ``bool``, ``str``, and lists of those.

    Args:
        path: A GGUF file.
        prefix: Values of other names are passed over.

    Raises:
        TokenizerError: It cannot be read, is no GGUF file, of an unknown version, or damaged.
    """
    try:
        with open(path, "rb") as file:
            return _Reader(file, str(path)).metadata(prefix)
    except OSError as error:
        raise TokenizerError(
            f"{path}: cannot be read ({error.strerror or error})", "check the file and its permissions"
        ) from error


class _Reader:
    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._name = name

    def metadata(self, prefix: str) -> dict[str, Any]:
        if self._file.read(4) != MAGIC:
            raise TokenizerError(f"{self._name}: not a GGUF file", "give one that begins with GGUF")
        version = self._scalar("I")
        if version not in _VERSIONS:
            raise TokenizerError(
                f"{self._name}: GGUF version {version}", "convert it again; versions 2 and 3 are read"
            )
        self._scalar("Q")  # number of tensors
        num_pairs = self._count(_MOST_PAIRS, "values")
        found = {}
        for _ in range(num_pairs):
            key = self._string()
            kind = self._scalar("I")
            if key.startswith(prefix):
                found[key] = self._value(kind, _MOST_DEPTH)
            else:
                self._skip(kind, _MOST_DEPTH)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._scalar(self._code(kind))
        item_kind, count = self._array_header(depth)
        if item_kind in (_STRING, _ARRAY):
            return [self._value(item_kind, depth - 1) for _ in range(count)]
        dtype = np.dtype(self._code(item_kind)).newbyteorder("<")
        return np.frombuffer(self._bytes(count * dtype.itemsize), dtype=dtype).tolist()

    def _skip(self, kind: int, depth: int) -> None:
        if kind == _STRING:
            self._bytes(self._count(_MOST_STRING_BYTES, "bytes"))
        elif kind != _ARRAY:
            self._scalar(self._code(kind))
        else:
            item_kind, count = self._array_header(depth)
            if item_kind in (_STRING, _ARRAY):
                for _ in range(count):
                    self._skip(item_kind, depth - 1)
            else:
                self._bytes(count * struct.calcsize(self._code(item_kind)))

    def _array_header(self, depth: int) -> tuple[int, int]:
        if depth == 0:
            self._damaged("lists inside lists inside lists")
        return self._scalar("I"), self._count(_MOST_ITEMS, "items")

    def _string(self) -> str:
        data = self._bytes(self._count(_MOST_STRING_BYTES, "bytes"))
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            self._damaged("a text that is not UTF-8")

    def _count(self, most: int, unit: str) -> int:
        count: int = self._scalar("Q")
        if count > most:
            self._damaged(f"{count:,} {unit}")
        return count

    def _code(self, kind: int) -> str:
        if kind not in _SCALARS:
            self._damaged(f"a value of type {kind}")
        return _SCALARS[kind]

    def _scalar(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._bytes(struct.calcsize(f"<{code}")))[0]

    def _bytes(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            self._damaged("it ends too early")
        return data

    def _damaged(self, reason: str) -> NoReturn:
        raise TokenizerError(f"{self._name}: damaged GGUF file ({reason})", "make or fetch it again")
