"""Where text comes from: a file, folder, glob or embedded corpus becomes an ordered list of sources."""

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
from insight.runtime.errors import DataError, nearest

_CORPUS_PREFIX = "corpus:"
_SUPPORTED = f"{', '.join(f'.{name}' for name in FORMATS)}, each also .{', .'.join(COMPRESSIONS)}"


@dataclass(frozen=True)
class Source:
    """One file.

    Attributes:
        path: The file, with links resolved.
        name: What the user called it, for messages and reports.
        format: ``"txt"``, ``"jsonl"``, ``"tsv"`` or ``"parquet"``; or of a file of token ids
            (:mod:`insight.data.sources.token_files`).
        compression: ``""``, ``"gz"``, ``"xz"`` or ``"zst"``.
    """

    path: Path
    name: str
    format: str
    compression: str

    @property
    def holds_tokens(self) -> bool:
        """Whether it holds token ids, which only their tokenizer can make text of."""
        return is_token_format(self.format)

    @property
    def has_ranges(self) -> bool:
        """Whether a part of it can be read by itself."""
        return self.format in RANGED_FORMATS and not self.compression

    def parts(
        self,
        reading: Reading = Reading(),
        repairs: TextRepairs | None = None,
        byte_range: ByteRange | None = None,
    ) -> Iterator[TextPart]:
        """The documents of this file in parts, in order, empty ones left out; memory stays small.

        A ``.txt`` file is one document; a ``.jsonl`` file has one a line, a ``.tsv`` or ``.parquet`` file
        one a row.

        Args:
            reading: How its bytes become documents.
            repairs: Counts what was repaired.
            byte_range: Only this part of the file, if it :attr:`has_ranges`.

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
            raise DataError(f"{self.name}: holds no text", "leave it out or give a file with text")

    def documents(self, reading: Reading = Reading(), repairs: TextRepairs | None = None) -> Iterator[str]:
        """The documents of this file, each as a whole; arguments and errors are those of :meth:`parts`."""
        return as_documents(self.parts(reading, repairs))


def expand_sources(patterns: str | Sequence[str], option: str = "files") -> list[Source]:
    """Expand what the user named into files, in a deterministic order and each file once.

    Patterns keep their order; inside a folder (searched with its sub-folders, hidden names skipped) or a
    glob the files are sorted by path. Empty files are skipped there, and refused when named directly.
    Files of token ids have to be named: ``FILE.bin``, a glob that ends in ``.bin``, or a folder that litgpt
    has prepared.

    Args:
        patterns: Each a file, a folder, a glob (``**`` allowed) or ``corpus:NAME``.
        option: The option that the patterns come from, for messages.

    Raises:
        DataError: A file is missing, empty or of no supported format, or nothing matches a pattern.
    """
    sources: dict[Path, Source] = {}
    for pattern in _checked(patterns, option):
        try:
            found = _expand(pattern, option)
        except OSError as error:  # such as a name that is too long, or a folder that may not be searched
            reason = error.strerror or str(error)
            raise DataError(f"{option}={pattern!r}: cannot be read ({reason})", "check its name") from error
        for source in found:
            sources.setdefault(source.path, source)
    return list(sources.values())


def _checked(patterns: object, option: str) -> list[str]:
    if isinstance(patterns, (str, os.PathLike)):
        named: list[object] = [patterns]
    elif isinstance(patterns, Sequence) and not isinstance(patterns, (bytes, bytearray)):
        named = list(patterns)
    else:
        raise DataError(
            f"{option} is {type(patterns).__name__}, not a name or a list of names",
            "name files, folders, globs or corpus:NAME",
        )
    if not named:
        raise DataError(f"{option} is an empty list", "name at least one file, folder, glob or corpus:NAME")
    for pattern in named:
        if not isinstance(pattern, (str, os.PathLike)) or not os.fspath(pattern):
            raise DataError(
                f"{option}: {pattern!r} names no file", "name files, folders, globs or corpus:NAME"
            )
    return [str(os.fspath(pattern)) for pattern in named if isinstance(pattern, (str, os.PathLike))]


def _expand(pattern: str, option: str) -> list[Source]:
    where = f"{option}={pattern!r}"
    if pattern.startswith(_CORPUS_PREFIX):
        return [_named_file(corpus_path(pattern.removeprefix(_CORPUS_PREFIX)), pattern, where)]
    path = Path(pattern).expanduser()
    if path.is_dir():
        if chunks := token_folder_files(path):
            return [Source(file.resolve(), str(file), format, "") for file, format in chunks]
        found = _files_in(path)
        if not any(_format_of(file) for file in found):
            raise DataError(f"{where}: a folder with no text in it", f"supported: {_SUPPORTED}")
        return _nonempty(found, where)
    if path.exists():
        return [_named_file(path, pattern, where)]
    if glob.has_magic(pattern):
        found = sorted(
            file for match in _matches(path) for file in (_files_in(match) if match.is_dir() else [match])
        )
        tokens_named = pattern.endswith(f".{TOKEN_FORMAT}")
        if not any(_format_of(file, tokens_named) for file in found):
            seen = f" (only {found[0].name} and the like)" if found else ""
            raise DataError(f"{where}: matches no text file{seen}", f"supported: {_SUPPORTED}")
        return _nonempty(found, where, tokens_named)
    raise DataError(f"{where}: no such file or folder", _nearby(path))


def _matches(path: Path) -> list[Path]:
    """What a glob matches; links to folders are not followed by ``**``, so a loop of links ends."""
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


def _nonempty(files: list[Path], where: str, tokens_named: bool = False) -> list[Source]:
    sources = []
    for file in files:
        kind = _format_of(file, tokens_named)
        if kind and file.is_file() and file.stat().st_size > 0:
            sources.append(Source(file.resolve(), str(file), *kind))
    if not sources:
        raise DataError(f"{where}: every file in it is empty", "give files with text")
    return sources


def _named_file(path: Path, name: str, where: str) -> Source:
    kind = _format_of(path, tokens_named=True)
    if kind is None:
        raise DataError(f"{where}: not a supported kind of file", f"supported: {_SUPPORTED}")
    if path.stat().st_size == 0:
        raise DataError(f"{where}: the file is empty", "give a file with text")
    return Source(path.resolve(), name, *kind)


def _format_of(path: Path, tokens_named: bool = False) -> tuple[str, str] | None:
    """``(format, compression)`` by the suffixes of the name, or ``None``.

    Args:
        path: A file.
        tokens_named: Whether ``.bin`` counts: in a folder it may be anything, such as the weights of a model.
    """
    parts = path.name.lower().split(".")
    if tokens_named and len(parts) > 1 and parts[-1] == TOKEN_FORMAT:
        return (TOKEN_FORMAT, "")
    compression = parts.pop() if len(parts) > 2 and parts[-1] in COMPRESSIONS else ""
    return (parts[-1], compression) if len(parts) > 1 and parts[-1] in FORMATS else None
