"""Decode plain or compressed files into text, piece by piece, with little memory; damage is detected."""

from __future__ import annotations

import bz2
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
from typing import IO, Any, ClassVar

from insight.runtime.errors import ConfigError, DataError, nearest

COMPRESSIONS = ("gz", "bz2", "xz", "zst")
INVALID_TEXT = ("error", "replace", "skip")
"""How bytes that are not UTF-8, and halves of surrogate pairs in JSON, can be handled.

The error names the place; a replacement is U+FFFD, as the Unicode standard recommends.
"""
# A few compressed bytes may expand a thousandfold, and zstd cannot limit its output: read little at once.
_COMPRESSED_BYTES = 1 << 12
_DECOMPRESSED_BYTES = 1 << 20
# The largest window that zstd decodes (`zstd --long=31`); memory is only used as the window fills.
_MOST_WINDOW_BYTES = 1 << 31
# A stream of .xz may be followed by a multiple of this number of zero bytes.
_XZ_PADDING = 4
# The longest header of a zstd frame (RFC 8878, section 3.1.1.1).
_FRAME_HEADER_BYTES = 18
# Frames of zstd 0.1 to 0.7 begin with a byte 0x1e or 0x22 to 0x27, followed by these.
_OLD_FRAME = b"\xb5\x2f\xfd"
_BYTE_ORDER_MARK = "\ufeff"
_UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ESCAPED_BYTES = re.compile("[\udc80-\udcff]+")
_SURROGATES = re.compile("[\ud800-\udfff]")


@contextlib.contextmanager
def open_source(path: Path, name: str, compression: str) -> Iterator[IO[bytes]]:
    """Open a file, called ``name`` in messages, and decompress its bytes as they are read.

    A compressed file may consist of several streams, with everything that its format allows between and
    after them: zero bytes (gzip, xz) and skippable frames (zstd).

    Raises:
        DataError: The file cannot be read or is damaged; this may be raised inside the block.
    """
    try:
        file: Any
        if not compression:
            file = open(path, "rb")  # noqa: SIM115 (closed below)
        elif compression == "gz":
            file = gzip.open(path, "rb")  # noqa: SIM115
        else:
            file = io.BufferedReader(_StreamReader(path, compression), buffer_size=_DECOMPRESSED_BYTES)
        with file:
            yield file
    except _UnsupportedError as error:
        raise DataError(f"{name}: {error}", "decompress it, and give the plain file") from error
    except (EOFError, _DamagedError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name}: damaged .{compression} file ({error})", "make or fetch it again") from error
    except OSError as error:
        raise unreadable(name, error) from error


def unreadable(name: str, error: OSError) -> DataError:
    """The error for a file that the system cannot read."""
    reason = error.strerror or str(error)
    return DataError(f"{name}: cannot be read ({reason})", "check the file and its permissions")


class _DamagedError(Exception):
    """The compressed data is not valid."""


class _UnsupportedError(Exception):
    """The compressed data may be valid but needs features that the libraries lack."""


class _StreamReader(io.RawIOBase):
    """The decompressed bytes of all streams of a file; any other data after them is an error.

    The readers of the standard library (and of fsspec, which uses them) silently end at data after the first
    stream that does not begin another one, such as padding.
    """

    def __init__(self, path: Path, compression: str) -> None:
        self._compression = compression
        self._file = open(path, "rb")  # noqa: SIM115 (closed in close)
        self._stream: Any = None
        self._is_first = True
        self._compressed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if self._stream is None and not self._begin_stream():
                return 0
            if not self._compressed and self._stream.needs_input:
                self._compressed = self._file.read(_COMPRESSED_BYTES)
                if not self._compressed:
                    raise EOFError("it ends in the middle of a stream")
            try:
                # BZ2Decompressor raises OSError for invalid data.
                data = self._stream.decompress(self._compressed, _DECOMPRESSED_BYTES)
            except (lzma.LZMAError, OSError) as error:
                raise _DamagedError(str(error)) from error
            self._ready, self._compressed = memoryview(data), b""
            if self._stream.eof:
                self._compressed, self._stream = self._stream.unused_data, None
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _begin_stream(self) -> bool:
        """Skip padding and begin the next stream; ``False`` at the end of the file."""
        num_zeros = 0
        while True:
            if len(self._compressed) < _FRAME_HEADER_BYTES:
                self._compressed += self._file.read(_COMPRESSED_BYTES)
            if self._is_first or self._compression != "xz" or not self._compressed.startswith(b"\0"):
                break
            rest = self._compressed.lstrip(b"\0")
            num_zeros += len(self._compressed) - len(rest)
            self._compressed = rest
        if num_zeros % _XZ_PADDING:
            raise _DamagedError(f"{num_zeros} bytes of padding, which is no multiple of {_XZ_PADDING}")
        if not self._compressed:
            return False
        if self._compression == "zst":
            self._stream = _ZstandardFrame()
        elif self._compression == "bz2":
            self._stream = bz2.BZ2Decompressor()
        else:
            # Only the first stream may have the format before .xz, which no stream can follow.
            self._stream = lzma.LZMADecompressor(lzma.FORMAT_AUTO if self._is_first else lzma.FORMAT_XZ)
        self._is_first = False
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


class _ZstandardFrame:
    """One zstd frame with the interface of the decompressors of the standard library."""

    needs_input = True

    def __init__(self) -> None:
        import zstandard

        self._library = zstandard
        self._frame = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW_BYTES).decompressobj()
        self._head = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        self._head = self._head or data[:_FRAME_HEADER_BYTES]
        try:
            return bytes(self._frame.decompress(data))
        except self._library.ZstdError as error:
            raise self._explained(error) from error

    @property
    def eof(self) -> bool:
        return bool(self._frame.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._frame.unused_data)

    def _explained(self, error: Exception) -> Exception:
        if self._head[1:4] == _OLD_FRAME and self._head[0] in (0x1E, *range(0x22, 0x28)):
            return _UnsupportedError("a frame of zstd 0.7 or older")
        with contextlib.suppress(self._library.ZstdError):
            header = self._library.get_frame_parameters(self._head)
            if header.dict_id:
                return _UnsupportedError(f"it was compressed with dictionary {header.dict_id}")
        if "memory" in str(error) and len(self._head) > 5:
            # RFC 8878, section 3.1.1.1.2: five bits of exponent and three of mantissa.
            size = (8 + (self._head[5] & 7)) << (7 + (self._head[5] >> 3))
            return _UnsupportedError(f"a frame needs a window of {size / (1 << 30):,.1f} GiB")
        return _DamagedError(str(error))


@dataclass(frozen=True)
class Reading:
    """How the bytes of a source become documents.

    Args:
        text_field: Field of ``.jsonl``, and column of ``.parquet`` and ``.tsv`` files, that holds the text.
        invalid_text: How bytes that are not UTF-8 are handled: ``error``, ``replace`` or ``skip``.

    Raises:
        ConfigError: A value cannot work.
    """

    text_field: str = "text"
    invalid_text: str = "error"

    field_option: ClassVar[str] = "text_field"
    """The option that names the field, for messages."""

    def __post_init__(self) -> None:
        if not isinstance(self.text_field, str) or not self.text_field:
            option, value = self.field_option, self.text_field
            raise ConfigError("names no field", "use e.g. text", option=option, value=value)
        if self.invalid_text not in INVALID_TEXT:
            match = nearest(str(self.invalid_text), INVALID_TEXT)
            remedy = f"did you mean {match!r}?" if match else f"choose one of {', '.join(INVALID_TEXT)}"
            raise ConfigError("is unknown", remedy, option="invalid_text", value=self.invalid_text)


@dataclass
class TextRepairs:
    """Counts the places where text was replaced or left out; ``first`` describes the first of them."""

    num_places: int = 0
    first: str = ""

    def count(self, num_places: int, where: str) -> None:
        """Count ``num_places`` more, the first of them at ``where``."""
        if num_places and not self.num_places:
            self.first = where
        self.num_places += num_places

    def describe(self, invalid_text: str) -> str:
        """A line that states how many places were repaired; ``""`` if none were."""
        if not self.num_places:
            return ""
        done = "replaced by U+FFFD" if invalid_text == "replace" else "left out"
        places = "1 place" if self.num_places == 1 else f"{self.num_places:,} places, the first"
        return f"text that is no valid Unicode was {done} at {places}: {self.first}"


class TextDecoder:
    """Decodes the UTF-8 bytes of one file in order; a character may be split between two calls.

    ``name`` is that of the file in messages. A byte order mark is removed only at ``position`` 0 of the file.
    """

    def __init__(self, name: str, invalid_text: str, repairs: TextRepairs, position: int = 0) -> None:
        self._name = name
        self._invalid_text = invalid_text
        self._repairs = repairs
        self._position = position
        self._rest = b""

    def decode(self, data: bytes, is_last: bool = False, line: int | None = None) -> str:
        """The text of ``data``; the bytes of an incomplete character are kept unless the file ends here.

        Raises:
            DataError: The bytes, which may be on a numbered line, are not UTF-8 and are not to be repaired.
        """
        if self._rest:
            data = self._rest + data
        try:
            text, used = codecs.utf_8_decode(data, "strict", is_last)
        except UnicodeDecodeError as error:
            place = "" if line is None else f"line {line}, "
            where = f"{self._name}: {place}byte {self._position + error.start}"
            if self._invalid_text == "error":
                remedy = (
                    "convert it first, e.g. iconv -f latin1 -t utf-8, or set invalid_text to replace or skip"
                )
                if self._position == 0 and data.startswith(_UTF_16_MARKS):
                    remedy = "it begins as UTF-16 does; convert it first, e.g. iconv -f utf-16 -t utf-8"
                raise DataError(f"{where} (0x{data[error.start]:02x}) is not UTF-8", remedy) from error
            # Invalid bytes become surrogates (PEP 383), which are then replaced or removed.
            text, used = codecs.utf_8_decode(data, "surrogateescape", is_last)
            text, num_places = _ESCAPED_BYTES.subn(self._replacement, text)
            self._repairs.count(num_places, where)
        if self._position == 0 and data.startswith(codecs.BOM_UTF8):
            text = text.removeprefix(_BYTE_ORDER_MARK)
        self._rest = data[used:]
        self._position += used
        return text

    def _replacement(self, match: re.Match[str]) -> str:
        if self._invalid_text == "skip":
            return ""
        # As many U+FFFD as a decoder would write for these bytes.
        return match[0].encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def checked_text(value: object, where: str, reading: Reading, repairs: TextRepairs) -> str:
    """A value that should be text, with halves of surrogate pairs, which JSON can spell, replaced or removed.

    ``None`` counts as empty text. A ``DataError`` refuses what is no text, and such halves unless the reading
    allows them.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        remedy = f"choose another {reading.field_option}"
        raise DataError(f"{where} is {type(value).__name__}, not text", remedy)
    if value.isascii() or (first := _SURROGATES.search(value)) is None:
        return value
    if reading.invalid_text == "error":
        problem = f"{where} has half a surrogate pair at character {first.start()}"
        raise DataError(problem, "repair or remove that record, or set invalid_text to replace or skip")
    text, num_places = _SURROGATES.subn("\ufffd" if reading.invalid_text == "replace" else "", value)
    repairs.count(num_places, f"{where}, character {first.start()}")
    return text
