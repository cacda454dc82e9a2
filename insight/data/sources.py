"""Where text comes from: a file, folder, glob or embedded corpus becomes an ordered list of sources."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from insight.data.corpora import corpus_path
from insight.data.formats import COMPRESSIONS, FORMATS, read_documents
from insight.runtime.errors import DataError, nearest

_CORPUS_PREFIX = "corpus:"
_SUPPORTED = f"{', '.join(f'.{name}' for name in FORMATS)}, each also .{', .'.join(COMPRESSIONS)}"


@dataclass(frozen=True)
class Source:
    """One file of text.

    Attributes:
        path: The file, with links resolved.
        name: What the user called it, for messages and reports.
        format: ``"txt"``, ``"jsonl"`` or ``"parquet"``.
        compression: ``""``, ``"gz"``, ``"xz"`` or ``"zst"``.
    """

    path: Path
    name: str
    format: str
    compression: str

    def documents(self, text_field: str = "text") -> Iterator[str]:
        """The documents of this file, in order, empty ones left out.

        A ``.txt`` file is one document; a ``.jsonl`` file has one a line, a ``.parquet`` file one a row.

        Args:
            text_field: The field (``.jsonl``) or column (``.parquet``) that holds the text.

        Raises:
            DataError: The file cannot be read, is damaged, is not UTF-8, lacks the field, or has no text.
        """
        is_empty = True
        for document in read_documents(self.path, self.name, self.format, self.compression, text_field):
            if document:
                is_empty = False
                yield document
        if is_empty:
            raise DataError(f"{self.name}: holds no text", "leave it out or give a file with text")


def expand_sources(patterns: str | Sequence[str], option: str = "files") -> list[Source]:
    """Expand what the user named into files, in a deterministic order and each file once.

    Patterns keep their order; inside a folder (searched with its sub-folders, hidden names skipped) or a
    glob the files are sorted by path. Empty files are skipped there, and refused when named directly.

    Args:
        patterns: Each a file, a folder, a glob (``**`` allowed) or ``corpus:NAME``.
        option: The option that the patterns come from, for messages.

    Raises:
        DataError: A file is missing, empty or of no supported format, or nothing matches a pattern.
    """
    named = [patterns] if isinstance(patterns, str) else list(patterns)
    if not named:
        raise DataError(f"{option} is an empty list", "name at least one file, folder, glob or corpus:NAME")
    sources: dict[Path, Source] = {}
    for pattern in named:
        for source in _expand(os.fspath(pattern), option):
            sources.setdefault(source.path, source)
    return list(sources.values())


def _expand(pattern: str, option: str) -> list[Source]:
    where = f"{option}={pattern!r}"
    if pattern.startswith(_CORPUS_PREFIX):
        return [_named_file(corpus_path(pattern.removeprefix(_CORPUS_PREFIX)), pattern, where)]
    path = Path(pattern).expanduser()
    if path.is_dir():
        found = _files_in(path)
        if not any(_format_of(file) for file in found):
            raise DataError(f"{where}: a folder with no text in it", f"supported: {_SUPPORTED}")
        return _nonempty(found, where)
    if path.exists():
        return [_named_file(path, pattern, where)]
    if glob.has_magic(pattern):
        found = sorted(
            file
            for match in glob.glob(str(path), recursive=True)
            for file in (_files_in(Path(match)) if Path(match).is_dir() else [Path(match)])
        )
        if not any(_format_of(file) for file in found):
            seen = f" (only {found[0].name} and the like)" if found else ""
            raise DataError(f"{where}: matches no text file{seen}", f"supported: {_SUPPORTED}")
        return _nonempty(found, where)
    raise DataError(f"{where}: no such file or folder", _nearby(path))


def _nearby(path: Path) -> str:
    """A remedy for a missing path: the file of that folder that was probably meant."""
    if not path.parent.is_dir():
        return f"its folder {path.parent} does not exist either"
    match = nearest(path.name, os.listdir(path.parent))
    return f"did you mean {path.parent / match}?" if match else f"working folder: {Path.cwd()}"


def _files_in(folder: Path) -> list[Path]:
    files = []
    # Links to folders are not followed, so a loop of links ends.
    for current, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(current, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _nonempty(files: list[Path], where: str) -> list[Source]:
    sources = []
    for file in files:
        kind = _format_of(file)
        if kind and file.is_file() and file.stat().st_size > 0:
            sources.append(Source(file.resolve(), str(file), *kind))
    if not sources:
        raise DataError(f"{where}: every file in it is empty", "give files with text")
    return sources


def _named_file(path: Path, name: str, where: str) -> Source:
    kind = _format_of(path)
    if kind is None:
        raise DataError(f"{where}: not a supported kind of file", f"supported: {_SUPPORTED}")
    if path.stat().st_size == 0:
        raise DataError(f"{where}: the file is empty", "give a file with text")
    return Source(path.resolve(), name, *kind)


def _format_of(path: Path) -> tuple[str, str] | None:
    """``(format, compression)`` by the suffixes of the name, or ``None``."""
    parts = path.name.lower().split(".")
    compression = parts.pop() if len(parts) > 2 and parts[-1] in COMPRESSIONS else ""
    return (parts[-1], compression) if len(parts) > 1 and parts[-1] in FORMATS else None
