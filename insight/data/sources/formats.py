"""Read the documents of a .txt, .jsonl, .tsv or .parquet file, plain or compressed, in parts."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from insight.data.sources.cuts import cut_stream
from insight.data.sources.decoding import Reading, TextDecoder, TextRepairs, open_source, valid_text
from insight.runtime.errors import DataError, nearest

FORMATS = ("txt", "jsonl", "tsv", "parquet")
RANGED_FORMATS = ("txt", "jsonl")
"""Formats of which a range of bytes can be read on its own."""
_TRAINING_CHARACTERS = 1 << 20
_CHUNK_BYTES = 1 << 20
# One wide character makes Python store four bytes for each in a string; short strings are mostly narrow.
_TEXT_BYTES = 1 << 17
_MOST_LINE_BYTES = 1 << 28
_PARQUET_ROWS = 1024


class TextPart(NamedTuple):
    """A part of a document, so that a long document need not be in memory as a whole.

    Attributes:
        text: The characters of the part.
        is_last: Whether the document ends with this part.
    """

    text: str
    is_last: bool


def as_parts(documents: Iterable[str]) -> Iterator[TextPart]:
    """Whole documents, each as one part.

    Raises:
        DataError: ``documents`` is a single ``str``, which would be read letter by letter.
    """
    if isinstance(documents, (str, bytes)):
        raise DataError("documents is one text, not a collection of texts", "give [text]")
    return (TextPart(document, True) for document in documents)


def rest_of_document(part: TextPart, parts: Iterator[TextPart]) -> Iterator[str]:
    """The text of a document from ``part``, which was taken from ``parts``, to its end."""
    yield part.text
    if not part.is_last:
        for following in parts:
            yield following.text
            if following.is_last:
                return


def as_documents(parts: Iterable[TextPart]) -> Iterator[str]:
    """Whole documents, one in memory at a time."""
    stream = iter(parts)
    for part in stream:
        yield part.text if part.is_last else "".join(rest_of_document(part, stream))


def without_empty(parts: Iterable[TextPart], goes_on: bool = False) -> Iterator[TextPart]:
    """Leave out empty documents, and empty parts inside a document if possible.

    ``goes_on`` tells whether the first document began before these parts, with some text.
    """
    for part in parts:
        if part.text or (part.is_last and goes_on):
            yield part
            goes_on = not part.is_last
        elif part.is_last:
            goes_on = False


def training_texts(parts: Iterable[TextPart]) -> Iterator[str]:
    """Texts for training a tokenizer: long documents come in pieces, cut only between words.

    Raises:
        TokenizerError: A document has millions of characters without a place to cut.
    """
    stream = iter(parts)
    for part in stream:
        if part.is_last:
            yield part.text
        else:
            yield from cut_stream(rest_of_document(part, stream), _TRAINING_CHARACTERS)


@dataclass(frozen=True)
class ByteRange:
    """A part of an uncompressed file.

    Attributes:
        start: The first byte; a character (``.txt``) or a line (``.jsonl``) begins there.
        stop: The byte after the last one.
        first_line: Number of the line at ``start``, for messages.
    """

    start: int
    stop: int
    first_line: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            problem = f"no range of bytes up to stop={self.stop}"
            raise DataError(problem, "use 0 <= start <= stop", option="start", value=self.start)


def read_parts(
    path: Path,
    name: str,
    format: str,
    compression: str,
    reading: Reading,
    repairs: TextRepairs,
    byte_range: ByteRange | None = None,
) -> Iterator[TextPart]:
    """The documents of one file, a ``.txt`` file in parts of 128 KiB, others one record at a time.

    Args:
        path: The file.
        name: Name of the file in messages.
        format: One of ``FORMATS``.
        compression: ``""`` or one of ``COMPRESSIONS``.
        reading: How the bytes become documents.
        repairs: Counts the repaired places.
        byte_range: Part to read of an uncompressed file in one of ``RANGED_FORMATS``.

    Raises:
        DataError: The file cannot be read, is damaged, is not UTF-8, or lacks the field.
    """
    if format not in FORMATS:
        remedy = f"use {', '.join(FORMATS)}"
        raise DataError(f"{name}: is unknown", remedy, option="format", value=format)
    if byte_range is not None and (compression or format not in RANGED_FORMATS):
        raise DataError(f"{name}: only a plain {' or '.join(RANGED_FORMATS)} file has ranges", "read it all")
    first_byte = byte_range.start if byte_range else 0
    with open_source(path, name, compression) as file:
        if byte_range:
            file.seek(byte_range.start)
        decoder = TextDecoder(name, reading.invalid_text, repairs, first_byte)
        if format == "txt":
            yield from _text(file, decoder, byte_range)
        elif format == "jsonl":
            first_line = byte_range.first_line if byte_range else 1
            lines = enumerate(_lines(file, name, byte_range), start=first_line)
            yield from _json_lines(lines, name, decoder, reading, repairs)
        elif format == "tsv":
            yield from _table_rows(_lines(file, name, None), name, decoder, reading)
        else:
            yield from _parquet_rows(file, name, compression, reading, repairs)


def _text(file: IO[bytes], decoder: TextDecoder, byte_range: ByteRange | None) -> Iterator[TextPart]:
    left = byte_range.stop - byte_range.start if byte_range else None
    is_last = False
    while not is_last:
        size = _TEXT_BYTES if left is None else min(_TEXT_BYTES, left)
        data = file.read(size)
        left = None if left is None else left - len(data)
        # All files here are buffered, so they return less than requested only at their end.
        is_last = len(data) < size or left == 0
        yield TextPart(decoder.decode(data, is_last), is_last)


def _lines(file: IO[bytes], name: str, byte_range: ByteRange | None) -> Iterator[bytes]:
    position = byte_range.start if byte_range else 0
    number = byte_range.first_line - 1 if byte_range else 0
    while byte_range is None or position < byte_range.stop:
        data = file.readline(_MOST_LINE_BYTES + 1)
        number += 1
        if not data:
            return
        if len(data) > _MOST_LINE_BYTES:
            raise DataError(
                f"{name}: line {number}, from byte {position}, is longer than {_MOST_LINE_BYTES >> 20} MiB",
                "a record is held in memory as a whole; put long texts into .txt files",
            )
        yield data
        position += len(data)


def _json_lines(
    lines: Iterator[tuple[int, bytes]],
    name: str,
    decoder: TextDecoder,
    reading: Reading,
    repairs: TextRepairs,
) -> Iterator[TextPart]:
    text_field = reading.text_field
    for number, data in lines:
        line = decoder.decode(data, is_last=True, line=number)
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{name}: line {number} is not JSON ({error})", "each line must be one JSON object"
            ) from error
        if not isinstance(record, dict):
            raise DataError(
                f"{name}: line {number} is not a JSON object",
                f'each line must be like {{"{text_field}": "..."}}',
            )
        if text_field not in record:
            raise DataError(
                f"{name}: line {number} has no field {text_field!r}", choose_field(text_field, list(record))
            )
        text = record[text_field]
        if type(text) is not str or not text.isascii():
            text = checked_text(text, f"{name}: line {number}, field {text_field!r}", reading, repairs)
        yield TextPart(text, True)


def _table_rows(
    lines: Iterator[bytes], name: str, decoder: TextDecoder, reading: Reading
) -> Iterator[TextPart]:
    """One column of tab-separated rows (IANA's ``text/tab-separated-values``).

    The first line names the columns, unless the column is given as a number; nothing is quoted or escaped.
    """
    column = int(reading.text_field) - 1 if reading.text_field.isdecimal() else None
    if column is not None and column < 0:
        raise DataError(
            f"{name}: columns are counted from 1", "use 1 or more", option="text_field", value="0"
        )
    num_columns = None
    for number, data in enumerate(lines, start=1):
        line = decoder.decode(data, is_last=True, line=number).removesuffix("\n")
        fields = line.removesuffix("\r").split("\t")
        if fields == [""]:
            continue
        if num_columns is None:
            num_columns = len(fields)
            if column is None:
                if reading.text_field not in fields:
                    raise DataError(
                        f"{name}: no column {reading.text_field!r} in its first line",
                        f"{choose_field(reading.text_field, fields)}; or give the number of a column "
                        "of a file whose first line is no header",
                    )
                column = fields.index(reading.text_field)
                continue
            if column >= num_columns:
                raise DataError(f"{name}: no column {column + 1}", f"it has {num_columns}")
        if len(fields) != num_columns:
            raise DataError(
                f"{name}: line {number} has {len(fields)} columns, the first line {num_columns}",
                "separate columns by one tab each; text cannot hold tabs",
            )
        assert column is not None
        yield TextPart(fields[column], True)


def _parquet_rows(
    file: IO[bytes], name: str, compression: str, reading: Reading, repairs: TextRepairs
) -> Iterator[TextPart]:
    import pyarrow
    import pyarrow.parquet

    text_field = reading.text_field
    try:
        # Parquet is read from its end, so a compressed file is unpacked first.
        source = io.BytesIO(file.read()) if compression else file
        table = pyarrow.parquet.ParquetFile(source, buffer_size=_CHUNK_BYTES)
        columns = table.schema_arrow.names
        if text_field not in columns:
            raise DataError(f"{name}: no column {text_field!r}", choose_field(text_field, columns))
        row = 0
        for batch in table.iter_batches(batch_size=_PARQUET_ROWS, columns=[text_field]):
            for value in _values(batch.column(0), name, row, reading, repairs):
                row += 1
                where = f"{name}: row {row}, column {text_field!r}"
                yield TextPart(checked_text(value, where, reading, repairs), True)
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{name}: damaged .parquet file ({reason})", "make or fetch it again") from error


def _values(column: Any, name: str, row: int, reading: Reading, repairs: TextRepairs) -> list[Any]:
    """The values of a column. Arrow does not check for UTF-8, so invalid text is decoded here."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        import pyarrow

        values = column.cast(pyarrow.large_binary()).to_pylist()
        for index, value in enumerate(values):
            if value is not None:
                where = f"{name}: row {row + index + 1}"
                decoder = TextDecoder(where, reading.invalid_text, repairs)
                values[index] = decoder.decode(value, is_last=True)
    return values


def choose_field(text_field: str, existing: list[str]) -> str:
    """A remedy for a missing field."""
    match = nearest(text_field, existing)
    suggestion = f"text_field={match!r}?" if match else "set text_field to one of them"
    return f"it has {', '.join(map(repr, existing)) or 'none'}; {suggestion}"


def checked_text(value: object, where: str, reading: Reading, repairs: TextRepairs) -> str:
    """A value that should be text; ``None`` counts as empty text.

    Raises:
        DataError: The value is not text, or not valid Unicode.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where} is {type(value).__name__}, not text", "choose another text_field")
    return valid_text(value, where, reading.invalid_text, repairs)
