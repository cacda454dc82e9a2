"""Open plain and compressed files as one stream of bytes; damage is found, memory stays small."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from insight.runtime.errors import ConfigError, DataError, nearest

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


INVALID_TEXT = {
    "error": "stop, and name the place",
    "replace": "put U+FFFD there, as the Unicode standard recommends",
    "skip": "leave it out",
}
"""What may be done with bytes that are no UTF-8, and with halves of surrogate pairs in JSON."""
_BYTE_ORDER_MARK = "\ufeff"
_UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ESCAPED_BYTES = re.compile("[\udc80-\udcff]+")
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Reading:
    """How the bytes of a source become documents.

    Attributes:
        text_field: Field of ``.jsonl``, column of ``.parquet`` and ``.tsv``.
        invalid_text: One of ``INVALID_TEXT``.

    Raises:
        ConfigError: A value cannot work.
    """

    text_field: str = "text"
    invalid_text: str = "error"

    def __post_init__(self) -> None:
        if not isinstance(self.text_field, str) or not self.text_field:
            raise ConfigError(f"text_field={self.text_field!r}: names no field", "use e.g. text")
        if self.invalid_text not in INVALID_TEXT:
            match = nearest(str(self.invalid_text), INVALID_TEXT)
            raise ConfigError(
                f"invalid_text={self.invalid_text!r} is unknown",
                f"did you mean {match!r}?" if match else f"choose one of {', '.join(INVALID_TEXT)}",
            )


class TextRepairs:
    """Counts the places where text was replaced or left out.

    Attributes:
        num_places: How many there were.
        first: Where the first one was, for people.
    """

    def __init__(self) -> None:
        self.num_places = 0
        self.first = ""

    def count(self, num_places: int, where: str) -> None:
        """Note ``num_places`` more, the first of them at ``where``."""
        if num_places and not self.num_places:
            self.first = where
        self.num_places += num_places

    def describe(self, invalid_text: str) -> str:
        """One line for people; ``""`` where nothing was repaired."""
        if not self.num_places:
            return ""
        done = "replaced by U+FFFD" if invalid_text == "replace" else "left out"
        places = "1 place" if self.num_places == 1 else f"{self.num_places:,} places, the first"
        return f"text that is no valid Unicode was {done} at {places}: {self.first}"


class TextDecoder:
    """UTF-8 to text, for one file read from the front; characters may be cut between two calls.

    Args:
        name: What messages call the file.
        invalid_text: One of ``INVALID_TEXT``.
        repairs: Counts what was repaired.
        position: Where in the file the bytes begin; the byte order mark is no text at 0 only.
    """

    def __init__(self, name: str, invalid_text: str, repairs: TextRepairs, position: int = 0) -> None:
        self._name = name
        self._invalid_text = invalid_text
        self._repairs = repairs
        self._position = position
        self._rest = b""

    def decode(self, data: bytes, is_last: bool = False, line: int | None = None) -> str:
        """The text of ``data``; of a character that is cut at its end the bytes are kept for the next call.

        Args:
            data: The next bytes of the file.
            is_last: Whether nothing follows, so that a character that is cut is invalid.
            line: Number of the line that they are, for messages.

        Raises:
            DataError: They are no UTF-8, and ``invalid_text`` is ``"error"``.
        """
        if self._rest:
            data = self._rest + data
        try:
            text, used = codecs.utf_8_decode(data, "strict", is_last)
        except UnicodeDecodeError as error:
            place = "" if line is None else f"line {line}, "
            where = f"{self._name}: {place}byte {self._position + error.start}"
            if self._invalid_text == "error":
                raise DataError(
                    f"{where} (0x{data[error.start]:02x}) is not UTF-8", self._remedy(data)
                ) from error
            text, used = codecs.utf_8_decode(data, "surrogateescape", is_last)
            text = self._repaired(text, where)
        if self._position == 0 and data.startswith(codecs.BOM_UTF8):
            text = text.removeprefix(_BYTE_ORDER_MARK)
        self._rest = data[used:]
        self._position += used
        return text

    def _repaired(self, text: str, where: str) -> str:
        """``text`` without the bytes that the codec wrote as surrogates (PEP 383)."""
        text, num_places = _ESCAPED_BYTES.subn(self._replacement, text)
        self._repairs.count(num_places, where)
        return text

    def _replacement(self, match: re.Match[str]) -> str:
        if self._invalid_text == "skip":
            return ""
        # As many U+FFFD as a decoder that sees the bytes in their place would write.
        return match[0].encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def _remedy(self, data: bytes) -> str:
        if self._position == 0 and data.startswith(_UTF_16_MARKS):
            return "it begins as UTF-16 does; convert it first, e.g. iconv -f utf-16 -t utf-8"
        return "convert it first, e.g. iconv -f latin1 -t utf-8, or set invalid_text to replace or skip"


def valid_text(text: str, where: str, invalid_text: str, repairs: TextRepairs) -> str:
    """``text``, which may have come with halves of surrogate pairs (JSON can spell them), as characters.

    Raises:
        DataError: It has one, and ``invalid_text`` is ``"error"``.
    """
    if text.isascii():
        return text
    first = _SURROGATES.search(text)
    if first is None:
        return text
    if invalid_text == "error":
        raise DataError(
            f"{where} has half a surrogate pair at character {first.start()}",
            "repair or remove that record, or set invalid_text to replace or skip",
        )
    text, num_places = _SURROGATES.subn("\ufffd" if invalid_text == "replace" else "", text)
    repairs.count(num_places, f"{where}, character {first.start()}")
    return text
