"""Parallel text: two aligned files, or one table or translation memory (.tmx) that holds both sides."""

from __future__ import annotations

import contextlib
import itertools
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from insight.data.corpora import corpus_path
from insight.data.sources.decoding import COMPRESSIONS, Reading, TextDecoder, TextRepairs, open_source
from insight.data.sources.formats import Source, read_lines
from insight.runtime.errors import DataError
from insight.runtime.files import missing_path_remedy

Pair = tuple[str, str]
ParallelFiles = str | list[str] | dict[str, str | list[str]]
"""A file or a list of files that hold both sides, or ``{source: FILES, target: FILES}`` of aligned files."""

TABLE_FORMATS = ("tsv", "jsonl", "parquet")
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_XML_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class ParallelSource:
    """One file with both sides, or two aligned files.

    Attributes:
        source: The file with the source side.
        target: The file with the target side; the same file for a table or a translation memory.
        format: ``"lines"`` for aligned files, ``"tmx"``, or one of :data:`TABLE_FORMATS`.
        fields: The field of each side: a column, a field, or a language.
        names: The names by which the user called the files.
    """

    source: Path
    target: Path
    format: str
    fields: tuple[str, str]
    names: tuple[str, str]

    @property
    def paths(self) -> list[Path]:
        """The files that are read."""
        return [self.source] if self.source == self.target else [self.source, self.target]

    @property
    def name(self) -> str:
        """The name of the source in messages."""
        return self.names[0] if self.source == self.target else f"{self.names[0]} and {self.names[1]}"

    def pairs(self, invalid_text: str = "error", repairs: TextRepairs | None = None) -> Iterator[Pair]:
        """The pairs in their order, empty sides included; only a line of each file is in memory.

        Args:
            invalid_text: The treatment of bytes that are no UTF-8, as in :class:`Reading`.
            repairs: Counts what was repaired.

        Raises:
            DataError: A file cannot be read or is damaged, lacks a field, or aligned files differ in length.
        """
        repairs = repairs or TextRepairs()
        if self.format == "tmx":
            yield from self._memory(invalid_text, repairs)
            return
        sides = [
            self._side(path, name, field, invalid_text, repairs)
            for path, name, field in zip((self.source, self.target), self.names, self.fields, strict=True)
        ]
        missing = object()
        for number, (first, second) in enumerate(itertools.zip_longest(*sides, fillvalue=missing), start=1):
            if first is missing or second is missing:
                shorter, longer = (0, 1) if first is missing else (1, 0)
                more = 1 + sum(1 for _ in sides[longer])
                raise DataError(
                    f"{self.names[shorter]} has {number - 1} lines and {self.names[longer]} has "
                    f"{number - 1 + more}: line {number} has no translation",
                    "aligned files need one translation in each line; empty lines count",
                )
            assert isinstance(first, str)
            assert isinstance(second, str)
            yield first, second

    def _side(
        self, path: Path, name: str, field: str, invalid_text: str, repairs: TextRepairs
    ) -> Iterator[str]:
        kind, compression = _format_of(path)
        if self.format != "lines":
            source = Source(path, name, kind, compression)
            for part in source.records(Reading(field, invalid_text), repairs):
                yield part.text
            return
        with open_source(path, name, compression) as file:
            decoder = TextDecoder(name, invalid_text, repairs)
            # Lines end with a newline alone: U+2028, U+0085 and the like stay inside of a sentence.
            for number, data in read_lines(file, name):
                line = decoder.decode(data, is_last=True, line=number)
                yield line.removesuffix("\n").removesuffix("\r")

    def _memory(self, invalid_text: str, repairs: TextRepairs) -> Iterator[Pair]:
        """The units of a translation memory that have both languages (TMX 1.4b)."""
        name = self.names[0]
        _, compression = _format_of(self.source)
        found_any = False
        languages: set[str] = set()
        parser: ElementTree.XMLPullParser[Any] = ElementTree.XMLPullParser(["end"])
        before = b""
        with open_source(self.source, name, compression) as file:
            try:
                for data in iter(lambda: file.read(_XML_CHUNK_BYTES), b""):
                    # Entities that stand for one another could expand without end.
                    if b"<!ENTITY" in before[-len(b"<!ENTITY") :] + data:
                        raise DataError(f"{name}: declares entities", "remove the declarations from the file")
                    before = data
                    parser.feed(data)
                    for event in parser.read_events():
                        element: ElementTree.Element = cast(Any, event)[1]
                        if element.tag != "tu":
                            continue
                        texts = _segments(element)
                        languages |= set(texts)
                        pair = [_of_language(texts, language) for language in self.fields]
                        element.clear()
                        if pair[0] is not None and pair[1] is not None:
                            found_any = True
                            yield pair[0], pair[1]
                parser.close()
            except ElementTree.ParseError as error:
                raise DataError(f"{name}: damaged .tmx file ({error})", "make or fetch it again") from error
        if not found_any:
            raise DataError(
                f"{name}: has no unit in both {self.fields[0]!r} and {self.fields[1]!r}",
                f"it has {', '.join(sorted(languages)) or 'no language'}; set source_field and target_field",
            )


def expand_parallel(
    files: ParallelFiles, source_field: str, target_field: str, option: str
) -> list[ParallelSource]:
    """The sources that the user named, in order.

    Args:
        files: A file, a list of files, or a mapping with ``source`` and ``target``.
        source_field: Column, field or language of the source side.
        target_field: Column, field or language of the target side.
        option: The option that the files come from, for messages.

    Raises:
        DataError: A file is missing or of no supported kind, or aligned files do not come in pairs.
    """
    fields = (source_field, target_field)
    if isinstance(files, Mapping):
        wrong = set(files) ^ {"source", "target"}
        if wrong:
            raise DataError(
                "aligned files need exactly the keys source and target",
                f"write {option}: {{source: FILE, target: FILE}}",
                option=option,
                value=", ".join(map(str, files)),
            )
        sides = [_as_list(files[side], f"{option}.{side}") for side in ("source", "target")]
        if len(sides[0]) != len(sides[1]):
            raise DataError(
                f"names {len(sides[0])} source files and {len(sides[1])} target files",
                "name as many files on both sides",
                option=option,
                value="...",
            )
        return [
            ParallelSource(_found(first, option), _found(second, option), "lines", fields, (first, second))
            for first, second in zip(*sides, strict=True)
        ]
    sources = []
    for name in _as_list(files, option):
        path = _found(name, option)
        kind, _ = _format_of(path)
        if kind not in (*TABLE_FORMATS, "tmx"):
            raise DataError(
                "holds one side only",
                f"use .tsv, .jsonl, .parquet or .tmx, or write {option}: {{source: FILE, target: FILE}}",
                option=option,
                value=name,
            )
        sources.append(ParallelSource(path, path, kind, fields, (name, name)))
    return sources


def _as_list(files: object, option: str) -> list[str]:
    named = [files] if isinstance(files, (str, os.PathLike)) else files
    if (
        not isinstance(named, Sequence)
        or not named
        or not all(isinstance(name, (str, os.PathLike)) for name in named)
    ):
        raise DataError("names no file", "name at least one file", option=option, value=files)
    return [os.fspath(name) for name in named]


def _found(name: str, option: str) -> Path:
    if name.startswith("corpus:"):
        return corpus_path(name.removeprefix("corpus:"))
    path = Path(name).expanduser()
    if not path.is_file():
        raise DataError(
            "there is no such file",
            missing_path_remedy(path) or f"the working folder is {Path.cwd()}",
            option=option,
            value=name,
        )
    return path.resolve()


def _format_of(path: Path) -> tuple[str, str]:
    """Format and compression by the suffixes of a name; a file of any other name holds lines."""
    parts = path.name.lower().split(".")
    compression = parts.pop() if len(parts) > 1 and parts[-1] in COMPRESSIONS else ""
    kind = parts[-1] if len(parts) > 1 else ""
    return (kind if kind in (*TABLE_FORMATS, "tmx") else "lines"), compression


def _segments(unit: ElementTree.Element) -> dict[str, str]:
    """Text by language of a translation unit, inline markup left out."""
    texts = {}
    for variant in unit.iter("tuv"):
        language = variant.get(_LANGUAGE) or variant.get("lang") or ""
        segment = variant.find("seg")
        if segment is not None:
            texts[language.lower()] = "".join(segment.itertext())
    return texts


def _of_language(texts: Mapping[str, str], language: str) -> str | None:
    """The text of a language; ``en`` finds ``en-GB`` too."""
    wanted = language.lower()
    if wanted in texts:
        return texts[wanted]
    with contextlib.suppress(StopIteration):
        return next(text for name, text in texts.items() if name.split("-")[0] == wanted)
    return None
