"""From the bytes of one file to its documents: .txt, .jsonl and .parquet, plain or compressed."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from insight.runtime.errors import DataError, nearest

FORMATS = ("txt", "jsonl", "parquet")
COMPRESSIONS = ("gz", "xz", "zst")
_BYTE_ORDER_MARK = "\ufeff"
_PARQUET_ROWS = 1024


def read_documents(path: Path, name: str, format: str, compression: str, text_field: str) -> Iterator[str]:
    """The documents of one file, decoded as a stream where the format allows it.

    Args:
        path: The file.
        name: What messages call it.
        format: One of ``FORMATS``.
        compression: ``""`` or one of ``COMPRESSIONS``.
        text_field: Field (jsonl) or column (parquet) with the text.

    Raises:
        DataError: The file cannot be read, is damaged, is not UTF-8, or lacks the field.
    """
    try:
        with _open(path, compression) as file:
            if format == "txt":
                yield _decode(file.read(), name)
            elif format == "jsonl":
                yield from _json_lines(file, name, text_field)
            else:
                yield from _parquet_rows(file, name, compression, text_field)
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


class _ZstandardReader(io.RawIOBase):
    """The decompressed bytes of a .zst file of one or more frames; a file cut short is an ``EOFError``."""

    def __init__(self, path: Path) -> None:
        import zstandard

        self._library = zstandard
        self._file = open(path, "rb")  # noqa: SIM115 (closed in close)
        self._frame: Any = None
        self._rest = b""
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._rest or self._file.read(1 << 18)
            self._rest = b""
            if not data:
                if self._frame is not None:
                    raise EOFError("it ends in the middle of a frame")
                return 0
            if self._frame is None:
                self._frame = self._library.ZstdDecompressor().decompressobj()
            try:
                self._ready = self._frame.decompress(data)
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


def _decode(data: bytes, name: str, first_byte: int = 0, place: str = "") -> str:
    """``data`` as UTF-8; ``first_byte`` is where it starts in the file."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: {place}byte {first_byte + error.start} (0x{data[error.start]:02x}) is not UTF-8",
            "convert it first, e.g. iconv -f latin1 -t utf-8",
        ) from error
    return text.removeprefix(_BYTE_ORDER_MARK) if first_byte == 0 else text


def _json_lines(file: IO[bytes], name: str, text_field: str) -> Iterator[str]:
    position = 0
    for number, data in enumerate(file, start=1):
        line = _decode(data, name, position, f"line {number}, ")
        position += len(data)
        if not line.strip():
            continue
        where = f"{name}: line {number}"
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{where} is not JSON ({error})", "each line must be one JSON object") from error
        if not isinstance(record, dict):
            raise DataError(
                f"{where} is not a JSON object", f'each line must be like {{"{text_field}": "..."}}'
            )
        if text_field not in record:
            raise DataError(f"{where} has no field {text_field!r}", _choose_field(text_field, list(record)))
        yield _checked_text(record[text_field], f"{where}, field {text_field!r}")


def _parquet_rows(file: IO[bytes], name: str, compression: str, text_field: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        # Parquet is read from its end: a compressed wrapper has to be unpacked first.
        table = pyarrow.parquet.ParquetFile(io.BytesIO(file.read()) if compression else file)
        columns = table.schema_arrow.names
        if text_field not in columns:
            raise DataError(f"{name}: no column {text_field!r}", _choose_field(text_field, columns))
        row = 0
        for batch in table.iter_batches(batch_size=_PARQUET_ROWS, columns=[text_field]):
            for value in batch.column(0).to_pylist():
                row += 1
                yield _checked_text(value, f"{name}: row {row}, column {text_field!r}")
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{name}: damaged .parquet file ({reason})", "make or fetch it again") from error


def _choose_field(text_field: str, existing: list[str]) -> str:
    match = nearest(text_field, existing)
    suggestion = f"text_field={match!r}?" if match else "set text_field to one of them"
    return f"it has {', '.join(map(repr, existing)) or 'none'}; {suggestion}"


def _checked_text(value: object, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where} is {type(value).__name__}, not text", "choose another text_field")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        # JSON can spell half of a surrogate pair, which is no character and has no UTF-8.
        raise DataError(
            f"{where} has half a surrogate pair at character {error.start}", "repair or remove that record"
        ) from error
    return value
