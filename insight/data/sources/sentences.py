"""Sentences of a file or a stream, one in each line, handed out as they come."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from insight.data.sources.decoding import COMPRESSIONS, TextDecoder, TextRepairs, open_source
from insight.runtime.errors import DataError
from insight.runtime.files import missing_path_remedy

_CHUNK_BYTES = 1 << 16
_MOST_LINE_BYTES = 1 << 20


class SentenceLines:
    """Lines of a binary stream. A newline alone ends a line: U+2028, U+0085 and the like stay inside of it.

    Args:
        file: The stream; needs ``read1``.
        name: Its name in messages.
        invalid_text: The treatment of bytes that are no UTF-8: ``error``, ``replace`` or ``skip``.
        is_live: Whether whoever writes the stream may wait for an answer: what has come is then handed out
            without waiting for more.

    Attributes:
        num_lines: Lines that were read.
        repairs: The bytes that were repaired.
    """

    def __init__(self, file: Any, name: str, invalid_text: str = "error", is_live: bool = False) -> None:
        self._file, self._name, self._is_live = file, name, is_live
        self.num_lines = 0
        self.repairs = TextRepairs()
        self._decoder = TextDecoder(name, invalid_text, self.repairs)
        self._hash = xxhash.xxh3_128()
        self._lines: list[bytes] = []
        self._pieces: list[bytes] = []  # of the line whose end has not come
        self._has_ended = False

    @property
    def content_hash(self) -> str:
        """The hash of all bytes that were read."""
        return str(self._hash.hexdigest())

    def take(self, most: int) -> list[str]:
        """The next lines, at most this many, without their ends; an empty list where there are no more.

        Raises:
            DataError: A line is no UTF-8 or longer than a sentence can be, or the file is damaged.
        """
        wanted = 1 if self._is_live else most
        while len(self._lines) < wanted and not self._has_ended:
            self._read()
        taken, self._lines = self._lines[:most], self._lines[most:]
        texts = []
        for data in taken:
            self.num_lines += 1
            if len(data) > _MOST_LINE_BYTES:
                raise self._too_long()
            text = self._decoder.decode(data, is_last=True, line=self.num_lines)
            texts.append(text.removesuffix("\n").removesuffix("\r"))
        return texts

    def _read(self) -> None:
        chunk = self._file.read1(_CHUNK_BYTES)
        self._hash.update(chunk)
        first, *others = chunk.split(b"\n")
        self._pieces.append(first)
        if others:
            self._lines += [line + b"\n" for line in (b"".join(self._pieces), *others[:-1])]
            self._pieces = [others[-1]]
        elif sum(map(len, self._pieces)) > _MOST_LINE_BYTES:
            self.num_lines += len(self._lines) + 1
            raise self._too_long()
        if not chunk:
            self._has_ended = True
            if rest := b"".join(self._pieces):
                self._lines.append(rest)

    def _too_long(self) -> DataError:
        problem = f"{self._name}: line {self.num_lines} is longer than {_MOST_LINE_BYTES >> 20} MiB"
        return DataError(problem, "put each sentence into a line of its own")


def is_regular(path: Path) -> bool:
    """Whether a path is a file that can be read twice, and no pipe.

    Raises:
        DataError: It is missing, a folder, or cannot be read.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        remedy = missing_path_remedy(path) or f"the working folder is {Path.cwd()}"
        raise DataError(f"{path}: there is no such file", remedy) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be the name of a file", "use another one") from error
    if stat.S_ISDIR(mode):
        raise DataError(f"{path}: is a folder", "name one file, with a sentence in each line")
    return stat.S_ISREG(mode)


@contextlib.contextmanager
def open_sentences(path: Path, invalid_text: str = "error") -> Iterator[SentenceLines]:
    """Open a file of sentences, which may be ``.gz``, ``.bz2``, ``.xz`` or ``.zst``, or a pipe.

    Raises:
        DataError: The file cannot be read; this may be raised inside the block.
    """
    is_live = not is_regular(path)
    suffix = path.suffix.removeprefix(".").lower()
    with open_source(path, str(path), suffix if suffix in COMPRESSIONS else "") as file:
        yield SentenceLines(file, str(path), invalid_text, is_live)
