"""Text files in ranges of bytes, each of which can be encoded on its own, anywhere and in any order."""

from __future__ import annotations

import codecs
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from insight.data.sources.cuts import EVERY_RULE_CUT
from insight.data.sources.decoding import Reading, TextRepairs, open_source, unreadable
from insight.data.sources.formats import ByteRange, Source, TextPart, require_text, without_empty
from insight.runtime.errors import DataError

RANGE_BYTES = 1 << 22
"""Least size of a range, except for the last range of a file."""
_WINDOW_BYTES = 1 << 16
_LINE_BYTES = 1 << 20
_MOST_CHARACTER_BYTES = 4
# Text is about this many times as large as its compressed form.
_EXPANSION = 4


@dataclass(frozen=True)
class RangeStart:
    """Where a range begins among all documents: in which one, and how many of its characters came before."""

    document: int = 0
    character: int = 0


@dataclass(frozen=True)
class TextRange:
    """A file, or a part of one.

    Attributes:
        source: The file.
        size: Size of the file in bytes, by which another machine checks that it sees the same file.
        byte_range: The part; ``None`` for the whole file.
        is_open: Whether the last document continues in the next range.
    """

    source: Source
    size: int
    byte_range: ByteRange | None = None
    is_open: bool = False

    @property
    def num_bytes(self) -> int:
        """Length of the range in bytes."""
        return self.byte_range.stop - self.byte_range.start if self.byte_range else self.size

    @property
    def text_bytes(self) -> int:
        """Approximate number of bytes of text, after decompression."""
        is_packed = self.source.compression or self.source.format == "parquet"
        return self.num_bytes * (_EXPANSION if is_packed else 1)

    @property
    def begins_inside(self) -> bool:
        """Whether the first document began in an earlier range."""
        return self.source.format == "txt" and self.byte_range is not None and self.byte_range.start > 0

    def __str__(self) -> str:
        if self.byte_range is None:
            return self.source.name
        return f"{self.source.name}, bytes {self.byte_range.start}–{self.byte_range.stop}"

    def parts(self, reading: Reading, repairs: TextRepairs) -> Iterator[TextPart]:
        """The documents in parts without empty ones; one that continues in the next range stays open."""
        if _size_of(self.source) != self.size:
            raise DataError(f"{self.source.name}: changed while it was read", "start again")
        try:
            records = self.source.records(reading, repairs, self.byte_range)
            if self.is_open:
                records = (part._replace(is_last=False) for part in records)
            yield from without_empty(records, self.begins_inside)
        except DataError:
            if self.source.format == "jsonl" and self.byte_range and self.byte_range.start:
                # The range is read again up to the same error, with line numbers of the whole file.
                first_line = self._first_line(self.byte_range.start)
                numbered = dataclasses.replace(self.byte_range, first_line=first_line)
                for _ in self.source.records(reading, TextRepairs(), numbered):
                    pass
            raise

    def _first_line(self, start: int) -> int:
        number = 1
        with open_source(self.source.path, self.source.name, "") as file:
            while start > 0 and (data := file.read(min(_LINE_BYTES, start))):
                number += data.count(b"\n")
                start -= len(data)
        return number


class RangedText:
    """The text of several files, as one stream and as ranges of about ``range_bytes`` that form it."""

    def __init__(self, sources: Sequence[Source], reading: Reading, range_bytes: int | None = None) -> None:
        self.reading = reading
        self._sources = sources
        self._range_bytes = range_bytes or RANGE_BYTES

    @functools.cached_property
    def ranges(self) -> list[TextRange]:
        """The ranges in order; large plain ``.jsonl`` and ``.txt`` files have several, other files one each.

        A ``.txt`` file, which is one document, is cut where every tokenizer with a known rule allows it.
        """
        return [each for source in self._sources for each in _cut_source(source, self._range_bytes)]

    @functools.cached_property
    def starts(self) -> list[RangeStart]:
        """Where each range begins among the documents; reads the text if nothing has found this before."""
        for _ in self.parts(TextRepairs()):
            pass
        return self.starts

    def parts(self, repairs: TextRepairs) -> Iterator[TextPart]:
        """The documents of all files, in order and in parts."""
        starts = []
        document = character = 0
        source, has_text = None, True
        for text_range in self.ranges:
            if text_range.source is not source:
                require_text(source, has_text)
                source, has_text = text_range.source, False
            starts.append(RangeStart(document, character))
            for part in without_empty(text_range.parts(self.reading, repairs), character > 0):
                yield part
                has_text = True
                character = 0 if part.is_last else character + len(part.text)
                document += part.is_last
        require_text(source, has_text)
        self.starts = starts


def joined_ranges(
    ranges: Sequence[TextRange], starts: Sequence[RangeStart]
) -> tuple[list[TextRange], list[RangeStart]]:
    """Join ranges so that each document is in one range, for a tokenizer that allows no cut."""
    joined: list[TextRange] = []
    kept: list[RangeStart] = []
    for text_range, start in zip(ranges, starts, strict=True):
        if joined and joined[-1].is_open:
            joined[-1] = dataclasses.replace(joined[-1], byte_range=None, is_open=text_range.is_open)
        else:
            joined.append(text_range)
            kept.append(start)
    return joined, kept


def _size_of(source: Source) -> int:
    try:
        return source.path.stat().st_size
    except OSError as error:
        raise unreadable(source.name, error) from error


def _cut_source(source: Source, range_bytes: int) -> list[TextRange]:
    size, starts = _size_of(source), [0]
    if source.has_ranges and size > range_bytes:
        find = _line_start if source.format == "jsonl" else _text_place
        with open_source(source.path, source.name, "") as file:
            while (wanted := starts[-1] + range_bytes) < size:
                found = find(file, wanted)
                if found is None or found >= size:
                    break
                starts.append(found)
    if len(starts) == 1:
        return [TextRange(source, size)]
    is_text = source.format == "txt"
    return [
        TextRange(source, size, ByteRange(start, stop), is_open=is_text and stop < size)
        for start, stop in zip(starts, [*starts[1:], size], strict=True)
    ]


def _line_start(file: IO[bytes], wanted: int) -> int | None:
    """The first position from ``wanted`` on where a line begins, or ``None``."""
    file.seek(wanted - 1)
    while data := file.readline(_LINE_BYTES):
        if data.endswith(b"\n"):
            return file.tell()
    return None


def _text_place(file: IO[bytes], wanted: int, window_bytes: int = _WINDOW_BYTES) -> int | None:
    """The first position from ``wanted`` on where the text may be cut, never next to invalid bytes."""
    start = max(0, wanted - _MOST_CHARACTER_BYTES)
    while True:
        file.seek(start)
        data = file.read(window_bytes)
        text, num_skipped = _whole_characters(data)
        before = data[num_skipped : max(num_skipped, wanted - start)]
        # A place is recognised by the characters on both sides, so not at the start of the window.
        match = EVERY_RULE_CUT.search(text, max(1, len(before.decode("utf-8", "ignore"))))
        if match is not None:
            return start + num_skipped + len(text[: match.start()].encode("utf-8"))
        if len(data) < window_bytes:
            return None
        start += len(data) - 2 * _MOST_CHARACTER_BYTES


def _whole_characters(data: bytes) -> tuple[str, int]:
    """The whole characters in ``data`` (``""`` if not UTF-8), and the number of bytes before them."""
    most = min(_MOST_CHARACTER_BYTES, len(data))
    # All bytes of a character but the first have this form.
    num_skipped = next((index for index in range(most) if data[index] & 0xC0 != 0x80), 0)
    try:
        return codecs.utf_8_decode(data[num_skipped:], "strict", False)[0], num_skipped
    except UnicodeDecodeError:
        return "", num_skipped
