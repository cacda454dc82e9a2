"""Parallel text: two aligned files, or one table or translation memory (.tmx) that holds both sides."""

from __future__ import annotations

import glob
import itertools
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from insight.data.corpora import corpus_path
from insight.data.sources.decoding import COMPRESSIONS, Reading, TextDecoder, TextRepairs, open_source
from insight.data.sources.formats import Source, read_lines
from insight.runtime.errors import DataError, did_you_mean, nearest
from insight.runtime.files import missing_path_remedy

Pair = tuple[str, str]
ParallelFiles = str | Sequence[str] | Mapping[str, str | Sequence[str]]
"""A file or a list of files that hold both sides, or ``{source: FILES, target: FILES}`` of aligned files."""

SIDES = ("source", "target")
TABLE_FORMATS = ("tsv", "jsonl", "parquet")
_MEMORY_FORMAT = "tmx"
_LINES_FORMAT = "lines"
_SUPPORTED = f"{', '.join(f'.{name}' for name in TABLE_FORMATS)} and .{_MEMORY_FORMAT}"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_XML_CHUNK_BYTES = 1 << 16
_ENTITY = b"<!ENTITY"
# The inline elements of TMX 1.4b whose content is code of a document format, not text of the sentence.
_INLINE_CODE = frozenset({"bpt", "ept", "it", "ph", "ut"})


class SourceReading(Reading):
    """How the source side of a table is read."""

    field_option: ClassVar[str] = "source_field"


class TargetReading(Reading):
    """How the target side of a table is read."""

    field_option: ClassVar[str] = "target_field"


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
        """The pairs in their order, empty sides included; only a record of each file is in memory.

        A unit of a translation memory that lacks a language has an empty side.

        Args:
            invalid_text: The treatment of bytes that are no UTF-8, as in :class:`Reading`; a translation
                memory states its encoding itself.
            repairs: Counts what was repaired.

        Raises:
            DataError: A file cannot be read or is damaged, lacks a field, or aligned files differ in length.
        """
        if self.format == _MEMORY_FORMAT:
            yield from self._units()
            return
        repairs = repairs or TextRepairs()
        readings = (
            SourceReading(self.fields[0], invalid_text),
            TargetReading(self.fields[1], invalid_text),
        )
        sides = [
            _side(path, name, self.format, reading, repairs)
            for path, name, reading in zip((self.source, self.target), self.names, readings, strict=True)
        ]
        for number, (first, second) in enumerate(itertools.zip_longest(*sides), start=1):
            if first is None or second is None:
                shorter, longer = (0, 1) if first is None else (1, 0)
                length = number + sum(1 for _ in sides[longer])
                lengths = (
                    f"{self.names[shorter]} has {number - 1} lines and {self.names[longer]} has {length}"
                )
                raise DataError(
                    f"{lengths}: line {number} has no translation",
                    "aligned files need one translation in each line; empty lines count",
                )
            yield first, second

    def _units(self) -> Iterator[Pair]:
        """The units of a translation memory (TMX 1.4b), each with the two languages."""
        name, languages = self.names[0], set[str]()
        is_found = [False, False]
        for texts in _translation_units(self.source, name):
            languages |= set(texts)
            pair = [_of_language(texts, language) for language in self.fields]
            is_found = [before or text is not None for before, text in zip(is_found, pair, strict=True)]
            yield pair[0] or "", pair[1] or ""
        for side, language, found in zip(SIDES, self.fields, is_found, strict=True):
            if not found:
                known = ", ".join(sorted(languages)) or "none"
                match = nearest(language, languages)
                remedy = f"{side}_field={match!r}?" if match else f"set {side}_field to one of them"
                raise DataError(f"{name}: has no language {language!r}", f"it has {known}; {remedy}")


def expand_parallel(
    files: ParallelFiles, source_field: str, target_field: str, option: str
) -> list[ParallelSource]:
    """The sources that the user named, in order, each once.

    Args:
        files: A file, a glob, a list of them, or a mapping with ``source`` and ``target``.
        source_field: Column, field or language of the source side.
        target_field: Column, field or language of the target side.
        option: The option that the files come from, for messages.

    Raises:
        DataError: A file is missing or of no supported kind, or aligned files do not come in pairs.
    """
    fields = (source_field, target_field)
    if isinstance(files, Mapping):
        return _aligned(files, fields, option)
    sources: dict[Path, ParallelSource] = {}
    for path, name in _found_files(files, option):
        kind, _ = _format_of(path)
        if kind == _LINES_FORMAT:
            remedy = f"supported are {_SUPPORTED}; of aligned files name both, as source and target"
            raise DataError("does not hold both sides", remedy, option=option, value=name)
        sources.setdefault(path, ParallelSource(path, path, kind, fields, (name, name)))
    return list(sources.values())


def _aligned(files: Mapping[str, Any], fields: tuple[str, str], option: str) -> list[ParallelSource]:
    for key in files:
        if key not in SIDES:
            remedy = did_you_mean(str(key), SIDES, "aligned files have the keys source and target")
            raise DataError("is no side of aligned files", remedy, option=option, value=key)
    sides = []
    for side in SIDES:
        if side not in files:
            remedy = "write {source: FILE, target: FILE}"
            raise DataError(f"names no {side} file", remedy, option=option, value=", ".join(files))
        sides.append(_found_files(files[side], f"{option}.{side}"))
        for path, name in sides[-1]:
            kind, _ = _format_of(path)
            if kind != _LINES_FORMAT:
                remedy = f"name it alone as {option}, with source_field and target_field"
                problem = f"a .{kind} file has no sentence in each line"
                raise DataError(problem, remedy, option=f"{option}.{side}", value=name)
    if len(sides[0]) != len(sides[1]):
        problem = f"{len(sides[0])} source files and {len(sides[1])} target files"
        raise DataError(f"{option}: names {problem}", "name as many files on both sides")
    return [
        ParallelSource(source, target, _LINES_FORMAT, fields, (source_name, target_name))
        for (source, source_name), (target, target_name) in zip(*sides, strict=True)
    ]


def _found_files(files: object, option: str) -> list[tuple[Path, str]]:
    """Path and name of every file that the user named; the files of a glob are sorted."""
    named = [files] if isinstance(files, (str, os.PathLike)) else files
    if not isinstance(named, Sequence) or isinstance(named, bytes) or not named:
        raise DataError("names no file", "name at least one file", option=option, value=files)
    found = []
    for name in named:
        if not isinstance(name, (str, os.PathLike)) or not os.fspath(name):
            raise DataError("names no file", "name at least one file", option=option, value=name)
        found += _matches(os.fspath(name), option)
    return found


def _matches(name: str, option: str) -> list[tuple[Path, str]]:
    def refused(problem: str, remedy: str) -> DataError:
        return DataError(problem, remedy, option=option, value=name)

    if name.startswith("corpus:"):
        return [(corpus_path(name.removeprefix("corpus:")), name)]
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            raise refused("is a folder", "name the files in it, such as FOLDER/*.tsv")
        if path.is_file():
            if path.stat().st_size == 0:
                raise refused("the file is empty", "give a file with text")
            return [(path.resolve(), name)]
        if glob.has_magic(name):
            found = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            if not (files := [each for each in found if each.is_file()]):
                raise refused("matches no file", f"the working folder is {Path.cwd()}")
            return [(each.resolve(), str(each)) for each in files]
        raise refused(
            "there is no such file", missing_path_remedy(path) or f"the working folder is {Path.cwd()}"
        )
    except (OSError, ValueError) as error:  # the name is too long or holds a null character
        raise refused(f"cannot be read ({error})", "check its name") from error


def _format_of(path: Path) -> tuple[str, str]:
    """Format and compression by the suffixes of a name; a file of any other name holds lines."""
    parts = path.name.lower().split(".")
    compression = parts.pop() if len(parts) > 1 and parts[-1] in COMPRESSIONS else ""
    kind = parts[-1] if len(parts) > 1 else ""
    return (kind if kind in (*TABLE_FORMATS, _MEMORY_FORMAT) else _LINES_FORMAT), compression


def _side(path: Path, name: str, kind: str, reading: Reading, repairs: TextRepairs) -> Iterator[str]:
    """The sentences of one side of a table or of aligned files."""
    _, compression = _format_of(path)
    if kind != _LINES_FORMAT:
        for part in Source(path, name, kind, compression).records(reading, repairs):
            yield part.text
        return
    with open_source(path, name, compression) as file:
        decoder = TextDecoder(name, reading.invalid_text, repairs)
        # Lines end with a newline alone: U+2028, U+0085 and the like stay inside of a sentence.
        for number, data in read_lines(file, name):
            line = decoder.decode(data, is_last=True, line=number)
            yield line.removesuffix("\n").removesuffix("\r")


def _translation_units(path: Path, name: str) -> Iterator[dict[str, str]]:
    """The text by language of each unit of a .tmx file; only a few units are in memory."""
    parser: ElementTree.XMLPullParser[Any] = ElementTree.XMLPullParser(["start", "end"])
    before, body = b"", None
    with open_source(path, name, _format_of(path)[1]) as file:
        try:
            for data in iter(lambda: file.read(_XML_CHUNK_BYTES), b""):
                # Entities that stand for one another could expand without end. In UTF-16 there are zeros.
                if _ENTITY in (before + data).replace(b"\0", b""):
                    raise DataError(f"{name}: declares entities", "remove the declarations from the file")
                before = data[-2 * len(_ENTITY) :]
                parser.feed(data)
                for found in parser.read_events():
                    event, element = cast(tuple[str, ElementTree.Element], found)
                    if event == "start":
                        body = element if element.tag == "body" else body
                    elif element.tag == "tu":
                        yield _segments(element)
                        if body is not None:
                            body.clear()  # or else the units that were read would stay in memory
            parser.close()
        except ElementTree.ParseError as error:
            raise DataError(f"{name}: damaged .tmx file ({error})", "make or fetch it again") from error


def _segments(unit: ElementTree.Element) -> dict[str, str]:
    """Text by language of a translation unit; of several texts in a language, the first."""
    texts: dict[str, str] = {}
    for variant in unit.iter("tuv"):
        language = variant.get(_LANGUAGE) or variant.get("lang") or ""
        segment = variant.find("seg")
        if segment is not None:
            # A file may break its lines inside of a segment.
            texts.setdefault(language.lower(), re.sub(r"[ \t\r\n]+", " ", _text_of(segment)).strip())
    return texts


def _text_of(element: ElementTree.Element) -> str:
    """The text of a segment without the code of its markup."""
    parts = [element.text or ""]
    for child in element:
        parts += ["" if child.tag in _INLINE_CODE else _text_of(child), child.tail or ""]
    return "".join(parts)


def _of_language(texts: Mapping[str, str], language: str) -> str | None:
    """The text of a language; ``en`` finds ``en-GB`` too."""
    wanted = language.lower()
    if wanted in texts:
        return texts[wanted]
    return next((text for name, text in texts.items() if re.split("[-_]", name)[0] == wanted), None)
