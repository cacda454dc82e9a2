"""Expand files, folders, globs and embedded corpora into a list of source files."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from insight.data.corpora import corpus_path
from insight.data.sources.decoding import COMPRESSIONS
from insight.data.sources.formats import FORMATS, Source
from insight.data.sources.token_files import TOKEN_FORMAT, token_folder_files
from insight.runtime.errors import DataError
from insight.runtime.files import missing_path_remedy

_CORPUS_PREFIX = "corpus:"
_SUPPORTED = f"{', '.join(f'.{name}' for name in FORMATS)}, each also .{', .'.join(COMPRESSIONS)}"


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
            problem = f"cannot be read ({error.strerror or error})"
            raise DataError(problem, "check its name", option=option, value=pattern) from error
        for source in found:
            sources.setdefault(source.path, source)
    return list(sources.values())


def _checked(patterns: object, option: str) -> list[str]:
    remedy = "name files, folders, globs or corpus:NAME"
    named = [patterns] if isinstance(patterns, (str, os.PathLike)) else patterns
    if not isinstance(named, Sequence) or isinstance(named, (bytes, bytearray)):
        problem = f"{type(patterns).__name__} is no name or list of names"
    elif not named:
        problem, remedy = "the list is empty", "name at least one file, folder, glob or corpus:NAME"
    elif wrong := [each for each in named if not isinstance(each, (str, os.PathLike)) or not os.fspath(each)]:
        problem = f"{wrong[0]!r} names no file"
    else:
        return [str(os.fspath(pattern)) for pattern in named]
    raise DataError(problem, remedy, option=option, value=patterns)


def _expand(pattern: str, option: str) -> list[Source]:
    def refused(problem: str, remedy: str = f"supported are {_SUPPORTED}") -> DataError:
        return DataError(problem, remedy, option=option, value=pattern)

    is_corpus = pattern.startswith(_CORPUS_PREFIX)
    path = corpus_path(pattern.removeprefix(_CORPUS_PREFIX)) if is_corpus else Path(pattern).expanduser()
    tokens_named = False
    if path.is_dir():
        if chunks := token_folder_files(path):
            return chunks
        found, problem = _files_in(path), "the folder holds no text"
    elif path.exists():
        kind = _format_of(path, tokens_named=True)
        if kind is None:
            raise refused("this kind of file is not supported")
        if path.stat().st_size == 0:
            raise refused("the file is empty", "give a file with text")
        return [Source(path.resolve(), pattern, *kind)]
    elif glob.has_magic(pattern):
        matches = _matches(path)
        found = sorted(file for each in matches for file in (_files_in(each) if each.is_dir() else [each]))
        tokens_named = pattern.endswith(f".{TOKEN_FORMAT}")
        problem = "matches no text file" + (f" (but {found[0].name} and the like)" if found else "")
    else:
        remedy = missing_path_remedy(path) or f"the working folder is {Path.cwd()}"
        raise refused("there is no such file or folder", remedy)
    kinds = [(file, kind) for file in found if (kind := _format_of(file, tokens_named))]
    if not kinds:
        raise refused(problem)
    filled = [(file, kind) for file, kind in kinds if file.is_file() and file.stat().st_size > 0]
    if not filled:
        raise refused("every file in it is empty", "give files with text")
    return [Source(file.resolve(), str(file), *kind) for file, kind in filled]


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


def _format_of(path: Path, tokens_named: bool = False) -> tuple[str, str] | None:
    """``(format, compression)`` by the suffixes of the name, or ``None``.

    Only if ``tokens_named``, ``.bin`` counts: in a folder it may be anything, such as the weights of a model.
    """
    parts = path.name.lower().split(".")
    if tokens_named and len(parts) > 1 and parts[-1] == TOKEN_FORMAT:
        return (TOKEN_FORMAT, "")
    compression = parts.pop() if len(parts) > 2 and parts[-1] in COMPRESSIONS else ""
    return (parts[-1], compression) if len(parts) > 1 and parts[-1] in FORMATS else None
