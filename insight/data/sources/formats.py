"""Sources of text; the documents of .txt, .jsonl, .tsv and .parquet files, plain or compressed, in parts."""

from __future__ import annotations

import io
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import xxhash

from insight.data.sources.cuts import cut_stream
from insight.data.sources.decoding import Reading, TextDecoder, TextRepairs, checked_text, open_source
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
    """A part of a document, which ends with the part that ``is_last``; a long one need not fit in memory."""

    text: str
    is_last: bool


def as_parts(documents: Iterable[str]) -> Iterator[TextPart]:
    """Whole documents, each as one part; a single ``str`` would be read letter by letter and is refused."""
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
    """Texts for training a tokenizer: long documents come in pieces, cut only between words."""
    stream = iter(parts)
    for part in stream:
        if part.is_last:
            yield part.text
        else:
            yield from cut_stream(rest_of_document(part, stream), _TRAINING_CHARACTERS)


@dataclass(frozen=True)
class ByteRange:
    """Bytes ``start`` to ``stop`` (excluded) of a file; ``first_line`` is the number of its line.

    A character (``.txt``) or a line (``.jsonl``) begins there.
    """

    start: int
    stop: int
    first_line: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            problem = f"no range of bytes up to stop={self.stop}"
            raise DataError(problem, "use 0 <= start <= stop", option="start", value=self.start)


_WHOLE = ByteRange(0, 1 << 63)


class TextSource(ABC):
    """Documents that can be read several times, under the ``name`` that the user gave, for messages."""

    name: str

    @property
    def holds_tokens(self) -> bool:
        """Whether the source holds token ids instead of text."""
        return False

    @abstractmethod
    def records(self, reading: Reading, repairs: TextRepairs) -> Iterator[TextPart]:
        """The documents as in :meth:`parts`, but with empty ones."""

    def parts(self, reading: Reading = Reading(), repairs: TextRepairs | None = None) -> Iterator[TextPart]:
        """The documents in parts, in order, without empty ones; memory stays small.

        Args:
            reading: How bytes and rows become documents.
            repairs: Counts the repaired places.

        Raises:
            DataError: The source cannot be read, is damaged, is not UTF-8, lacks the field, has no text, or
                holds token ids.
        """
        if self.holds_tokens:
            raise DataError(f"{self.name}: holds token ids, not text", "give the text that they were made of")
        has_text = False
        for part in without_empty(self.records(reading, repairs or TextRepairs())):
            has_text = True
            yield part
        require_text(self, has_text)

    def documents(self, reading: Reading = Reading(), repairs: TextRepairs | None = None) -> Iterator[str]:
        """The whole documents; arguments and errors are those of :meth:`parts`."""
        return as_documents(self.parts(reading, repairs))


def require_text(source: TextSource | None, has_text: bool) -> None:
    """Refuse a source in which no text was found."""
    if source is not None and not has_text:
        raise DataError(f"{source.name}: holds no text", "leave it out or give one with text")


@dataclass(frozen=True)
class Source(TextSource):
    """One file; a document is a ``.txt`` file, a line of ``.jsonl``, or a row of ``.tsv`` or ``.parquet``.

    Attributes:
        path: The file, with links resolved.
        name: The name that the user gave, for messages and reports.
        format: ``"txt"``, ``"jsonl"``, ``"tsv"`` or ``"parquet"``, or the format of a file of token ids
            (:mod:`insight.data.sources.token_files`).
        compression: ``""`` or one of ``COMPRESSIONS``.
    """

    path: Path
    name: str
    format: str
    compression: str

    @property
    def holds_tokens(self) -> bool:
        return self.format not in FORMATS

    @property
    def has_ranges(self) -> bool:
        """Whether a part of the file can be read on its own."""
        return self.format in RANGED_FORMATS and not self.compression

    def records(
        self, reading: Reading, repairs: TextRepairs, byte_range: ByteRange | None = None
    ) -> Iterator[TextPart]:
        """The documents with empty ones, a ``.txt`` file in parts of 128 KiB, others one record at a time.

        ``byte_range`` is the part to read of a file that :attr:`has_ranges`; all of it is read if not given.
        """
        if byte_range and not self.has_ranges:
            problem = f"{self.name}: only a plain {' or '.join(RANGED_FORMATS)} file has ranges"
            raise DataError(problem, "read it all")
        span = byte_range or _WHOLE
        with open_source(self.path, self.name, self.compression) as file:
            if span.start:
                file.seek(span.start)
            decoder = TextDecoder(self.name, reading.invalid_text, repairs, span.start)
            if self.format == "txt":
                yield from _text(file, decoder, span)
            elif self.format == "jsonl":
                yield from _json_lines(
                    read_lines(file, self.name, span), self.name, decoder, reading, repairs
                )
            elif self.format == "tsv":
                yield from _table_rows(read_lines(file, self.name, span), self.name, decoder, reading)
            else:
                # Parquet is read from its end, so a compressed file is unpacked first.
                table = io.BytesIO(file.read()) if self.compression else file
                yield from _parquet_rows(table, self.name, reading, repairs)


def _text(file: IO[bytes], decoder: TextDecoder, span: ByteRange) -> Iterator[TextPart]:
    left = span.stop - span.start
    is_last = False
    while not is_last:
        size = min(_TEXT_BYTES, left)
        data = file.read(size)
        left -= len(data)
        # All files here are buffered, so they return less than requested only at their end.
        is_last = len(data) < size or left == 0
        yield TextPart(decoder.decode(data, is_last), is_last)


def read_lines(file: IO[bytes], name: str, span: ByteRange = _WHOLE) -> Iterator[tuple[int, bytes]]:
    """The lines, which end with a newline alone, with their numbers."""
    position = span.start
    for number in itertools.count(span.first_line):
        if position >= span.stop or not (data := file.readline(_MOST_LINE_BYTES + 1)):
            return
        if len(data) > _MOST_LINE_BYTES:
            place, limit = f"line {number}, from byte {position}", f"longer than {_MOST_LINE_BYTES >> 20} MiB"
            remedy = "a record is held in memory as a whole; put long texts into .txt files"
            raise DataError(f"{name}: {place}, is {limit}", remedy)
        yield number, data
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
            problem = f"{name}: line {number} is not JSON ({error})"
            raise DataError(problem, "each line must be one JSON object") from error
        if not isinstance(record, dict):
            remedy = f'each line must be like {{"{text_field}": "..."}}'
            raise DataError(f"{name}: line {number} is not a JSON object", remedy)
        if text_field not in record:
            remedy = choose_field(reading, list(record))
            raise DataError(f"{name}: line {number} has no field {text_field!r}", remedy)
        text = record[text_field]
        if type(text) is not str or not text.isascii():
            text = checked_text(text, f"{name}: line {number}, field {text_field!r}", reading, repairs)
        yield TextPart(text, True)


def _table_rows(
    lines: Iterator[tuple[int, bytes]], name: str, decoder: TextDecoder, reading: Reading
) -> Iterator[TextPart]:
    """One column of tab-separated rows (IANA's ``text/tab-separated-values``).

    The first line names the columns, unless the column is given as a number; nothing is quoted or escaped.
    """
    field = reading.text_field
    column = int(field) - 1 if field.isdecimal() else None
    if column == -1:
        problem = f"{name}: columns are counted from 1"
        raise DataError(problem, "use 1 or more", option=reading.field_option, value="0")
    num_columns = 0
    for number, data in lines:
        line = decoder.decode(data, is_last=True, line=number).removesuffix("\n")
        fields = line.removesuffix("\r").split("\t")
        if fields == [""]:
            continue
        num_columns = num_columns or len(fields)
        if column is None:
            if field not in fields:
                remedy = "or give the number of a column of a file whose first line is no header"
                problem = f"{name}: no column {field!r} in its first line"
                raise DataError(problem, f"{choose_field(reading, fields)}; {remedy}")
            column = fields.index(field)
            continue
        if column >= num_columns:
            raise DataError(f"{name}: no column {column + 1}", f"it has {num_columns}")
        if len(fields) != num_columns:
            problem = f"{name}: line {number} has {len(fields)} columns, the first line {num_columns}"
            raise DataError(problem, "separate columns by one tab each; text cannot hold tabs")
        yield TextPart(fields[column], True)


def _parquet_rows(file: IO[bytes], name: str, reading: Reading, repairs: TextRepairs) -> Iterator[TextPart]:
    import pyarrow
    import pyarrow.parquet

    text_field = reading.text_field
    try:
        table = pyarrow.parquet.ParquetFile(file, buffer_size=_CHUNK_BYTES)
        columns = table.schema_arrow.names
        if text_field not in columns:
            raise DataError(f"{name}: no column {text_field!r}", choose_field(reading, columns))
        row = 0
        for batch in table.iter_batches(batch_size=_PARQUET_ROWS, columns=[text_field]):
            column: Any = batch.column(0)
            is_decoded = True
            try:
                values: list[Any] = column.to_pylist()
            except UnicodeDecodeError:  # Arrow does not check for UTF-8.
                values = column.cast(pyarrow.large_binary()).to_pylist()
                is_decoded = False
            for value in values:
                row += 1
                if not is_decoded and value is not None:
                    of_row = TextDecoder(f"{name}: row {row}", reading.invalid_text, repairs)
                    value = of_row.decode(value, is_last=True)
                where = f"{name}: row {row}, column {text_field!r}"
                yield TextPart(checked_text(value, where, reading, repairs), True)
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{name}: damaged .parquet file ({reason})", "make or fetch it again") from error


def choose_field(reading: Reading, existing: list[str]) -> str:
    """A remedy for a missing field."""
    match, option = nearest(reading.text_field, existing), reading.field_option
    suggestion = f"{option}={match!r}?" if match else f"set {option} to one of them"
    return f"it has {', '.join(map(repr, existing)) or 'none'}; {suggestion}"


class Texts(TextSource):
    """Documents to train or evaluate on, used in place of file names.

    They are read several times (to hash, train a tokenizer, divide and encode), so each pass must give the
    same documents in the same order, which is checked. The library `datasets` is not imported: its objects
    are collections of rows.

    Args:
        documents: A collection that can be iterated several times (list, ``datasets.Dataset``,
            ``datasets.IterableDataset``), or a function that returns an iterator. Each document is a text, or
            a row (a mapping) that holds it in ``text_field``.
        name: Name of the documents in messages and reports.

    Raises:
        DataError: ``documents`` is a single text, a one-pass iterator, or several splits.
    """

    def __init__(
        self, documents: Iterable[Any] | Callable[[], Iterable[Any]], name: str = "the given texts"
    ) -> None:
        remedy = "give a list, or a function that returns the documents anew"
        if isinstance(documents, (str, bytes)):
            raise DataError("documents is one text, not a collection of texts", "give [text]")
        if isinstance(documents, Mapping):
            splits = ", ".join(map(str, documents))
            raise DataError(f"documents is a mapping ({splits})", "give one of them: dataset['train']")
        if isinstance(documents, Iterator):
            raise DataError("documents is an iterator, which is used up after one pass", remedy)
        if not callable(documents) and not isinstance(documents, Iterable):
            raise DataError(f"documents is {type(documents).__name__}, not a collection of texts", remedy)
        self._documents = documents
        self.name = name

    def records(self, reading: Reading, repairs: TextRepairs) -> Iterator[TextPart]:
        documents = self._documents() if callable(self._documents) else self._documents
        for number, document in enumerate(documents):
            where = f"{self.name}: document {number}"
            if isinstance(document, Mapping):
                field = reading.text_field
                if field not in document:
                    remedy = choose_field(reading, [str(name) for name in document])
                    raise DataError(f"{where} has no field {field!r}", remedy)
                where = f"{where}, field {field!r}"
                document = document[field]
            yield TextPart(checked_text(document, where, reading, repairs), True)


def text_hash(source: TextSource, reading: Reading) -> str:
    """A hash of all documents of a source in order (xxh3, 128 bits, hexadecimal)."""
    hasher = xxhash.xxh3_128()
    for text in source.documents(reading):
        data = text.encode("utf-8")
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return str(hasher.hexdigest())
