"""Expand files, folders, globs and embedded corpora into a list of source files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from insight.data.corpora import corpus_path
from insight.data.sources.decoding import COMPRESSIONS, Reading, TextRepairs
from insight.data.sources.formats import (
    FORMATS,
    RANGED_FORMATS,
    ByteRange,
    TextPart,
    as_documents,
    read_parts,
    without_empty,
)
from insight.data.sources.token_files import TOKEN_FORMAT, is_token_format, token_folder_files
from insight.runtime.errors import DataError
from insight.runtime.files import missing_path_remedy

_CORPUS_PREFIX = "corpus:"
_SUPPORTED = f"{', '.join(f'.{name}' for name in FORMATS)}, each also .{', .'.join(COMPRESSIONS)}"


@dataclass(frozen=True)
class Source:
    """One file.

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
        """Whether the file holds token ids instead of text."""
        return is_token_format(self.format)

    @property
    def has_ranges(self) -> bool:
        """Whether a part of the file can be read on its own."""
        return self.format in RANGED_FORMATS and not self.compression

    def parts(
        self,
        reading: Reading = Reading(),
        repairs: TextRepairs | None = None,
        byte_range: ByteRange | None = None,
    ) -> Iterator[TextPart]:
        """The documents of this file in parts, in order, without empty ones; memory stays small.

        A document is a ``.txt`` file, a line of ``.jsonl``, or a row of ``.tsv`` or ``.parquet``.

        Args:
            reading: How the bytes become documents.
            repairs: Counts the repaired places.
            byte_range: Part of the file to read, if it :attr:`has_ranges`.

        Raises:
            DataError: The file cannot be read, is damaged, is not UTF-8, lacks the field, has no text, or
                holds token ids.
        """
        if self.holds_tokens:
            raise DataError(f"{self.name}: holds token ids, not text", "give the text that they were made of")
        repairs = repairs or TextRepairs()
        is_empty = True
        read = read_parts(self.path, self.name, self.format, self.compression, reading, repairs, byte_range)
        for part in without_empty(read):
            is_empty = False
            yield part
        if is_empty and byte_range is None:
            raise no_text(self.name)

    def documents(self, reading: Reading = Reading(), repairs: TextRepairs | None = None) -> Iterator[str]:
        """The whole documents of this file; arguments and errors are those of :meth:`parts`."""
        return as_documents(self.parts(reading, repairs))


def no_text(name: str) -> DataError:
    """The error for a file without any text."""
    return DataError(f"{name}: holds no text", "leave it out or give a file with text")


def expand_sources(patterns: str | Sequence[str], option: str = "files") -> list[Source]:
    """Expand the names that a user gave into files, in a deterministic order and each file once.

    Patterns keep their order; the files of a folder (searched with its sub-folders, hidden names skipped) or
    a glob are sorted by path. Empty files are skipped there, and refused if named directly. Files of token
    ids must be named: ``FILE.bin``, a glob that ends in ``.bin``, or a folder prepared by litgpt.

    Args:
        patterns: Files, folders, globs (``**`` allowed) or ``corpus:NAME``.
        option: The option that holds the patterns, for messages.

    Raises:
        DataError: A file is missing, empty or in no supported format, or a pattern matches nothing.
    """
    sources: dict[Path, Source] = {}
    for pattern in _checked(patterns, option):
        try:
            found = _expand(pattern, option)
        except OSError as error:  # Such as a name that is too long or a folder without permission.
            reason = error.strerror or str(error)
            problem = f"cannot be read ({reason})"
            raise DataError(problem, "check its name", option=option, value=pattern) from error
        for source in found:
            sources.setdefault(source.path, source)
    return list(sources.values())


def _checked(patterns: object, option: str) -> list[str]:
    remedy = "name files, folders, globs or corpus:NAME"
    if isinstance(patterns, (str, os.PathLike)):
        named: list[object] = [patterns]
    elif isinstance(patterns, Sequence) and not isinstance(patterns, (bytes, bytearray)):
        named = list(patterns)
    else:
        kind = type(patterns).__name__
        raise DataError(f"{kind} is no name or list of names", remedy, option=option, value=patterns)
    if not named:
        remedy = "name at least one file, folder, glob or corpus:NAME"
        raise DataError("the list is empty", remedy, option=option, value=patterns)
    for pattern in named:
        if not isinstance(pattern, (str, os.PathLike)) or not os.fspath(pattern):
            raise DataError(f"{pattern!r} names no file", remedy, option=option, value=patterns)
    return [str(os.fspath(pattern)) for pattern in named if isinstance(pattern, (str, os.PathLike))]


def _expand(pattern: str, option: str) -> list[Source]:
    if pattern.startswith(_CORPUS_PREFIX):
        return [_named_file(corpus_path(pattern.removeprefix(_CORPUS_PREFIX)), pattern, option)]
    path = Path(pattern).expanduser()
    if path.is_dir():
        if chunks := token_folder_files(path):
            return [Source(file.resolve(), str(file), format, "") for file, format in chunks]
        found = _files_in(path)
        if not any(_format_of(file) for file in found):
            raise DataError("the folder holds no text", _supported(), option=option, value=pattern)
        return _nonempty(found, pattern, option)
    if path.exists():
        return [_named_file(path, pattern, option)]
    if glob.has_magic(pattern):
        found = sorted(
            file for match in _matches(path) for file in (_files_in(match) if match.is_dir() else [match])
        )
        tokens_named = pattern.endswith(f".{TOKEN_FORMAT}")
        if not any(_format_of(file, tokens_named) for file in found):
            seen = f" (but {found[0].name} and the like)" if found else ""
            raise DataError(f"matches no text file{seen}", _supported(), option=option, value=pattern)
        return _nonempty(found, pattern, option, tokens_named)
    remedy = missing_path_remedy(path) or f"the working folder is {Path.cwd()}"
    raise DataError("there is no such file or folder", remedy, option=option, value=pattern)


def _matches(path: Path) -> list[Path]:
    """The files and folders that a glob matches; ``**`` does not follow links, so that loops of links end."""
    parts = path.parts
    if "**" not in parts or any("**" in part and part != "**" for part in parts):
        return [Path(match) for match in glob.glob(str(path))]
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    root, pattern = Path(*parts[:first]), parts[first:]
    wants_hidden = any(part.startswith(".") for part in pattern)
    return [
        match
        for match in root.glob("/".join(pattern))
        if wants_hidden or not any(part.startswith(".") for part in match.relative_to(root).parts)
    ]


def _files_in(folder: Path) -> list[Path]:
    files = []
    # Links to folders are not followed, so a loop of links ends.
    for current, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(current, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _nonempty(files: list[Path], pattern: str, option: str, tokens_named: bool = False) -> list[Source]:
    sources = []
    for file in files:
        kind = _format_of(file, tokens_named)
        if kind and file.is_file() and file.stat().st_size > 0:
            sources.append(Source(file.resolve(), str(file), *kind))
    if not sources:
        raise DataError("every file in it is empty", "give files with text", option=option, value=pattern)
    return sources


def _named_file(path: Path, pattern: str, option: str) -> Source:
    kind = _format_of(path, tokens_named=True)
    if kind is None:
        raise DataError("this kind of file is not supported", _supported(), option=option, value=pattern)
    if path.stat().st_size == 0:
        raise DataError("the file is empty", "give a file with text", option=option, value=pattern)
    return Source(path.resolve(), pattern, *kind)


def _supported() -> str:
    return f"supported are {_SUPPORTED}"


def _format_of(path: Path, tokens_named: bool = False) -> tuple[str, str] | None:
    """``(format, compression)`` by the suffixes of the name, or ``None``.

    Only if ``tokens_named``, ``.bin`` counts: in a folder it may be anything, such as the weights of a model.
    """
    parts = path.name.lower().split(".")
    if tokens_named and len(parts) > 1 and parts[-1] == TOKEN_FORMAT:
        return (TOKEN_FORMAT, "")
    compression = parts.pop() if len(parts) > 2 and parts[-1] in COMPRESSIONS else ""
    return (parts[-1], compression) if len(parts) > 1 and parts[-1] in FORMATS else None
