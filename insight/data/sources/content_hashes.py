"""Content hashes of source files, remembered so that unchanged files are not read again."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import xxhash

from insight.runtime.errors import DataError, OutputError
from insight.runtime.files import atomic_write_text

# A file changed this shortly before it was hashed could change again without a new time stamp, so its record
# is not trusted (git calls such an index entry "racily clean").
_DOUBT_NANOSECONDS = 2_000_000_000

_HASHED_BYTES = 1 << 18

_Record = tuple[int, int, int, str]


class ContentHashes:
    """xxh3 (128 bits) of files by path, size, time of change and inode.

    Args:
        cache_dir: Where the records are kept, a file a folder of sources.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._folder = cache_dir / "sources"

    def of(self, paths: Sequence[Path]) -> list[str]:
        """The content hash of each file (as stored: compressed files are not unpacked).

        Raises:
            DataError: A file cannot be read, or ``paths`` is one path instead of a list.
        """
        if isinstance(paths, (str, bytes, os.PathLike)):
            raise DataError(f"paths={paths!r} is one path", "give a list of paths")
        by_folder: dict[Path, list[Path]] = defaultdict(list)
        for path in paths:
            by_folder[path.parent].append(path)
        hashes: dict[Path, str] = {}
        for folder, members in by_folder.items():
            hashes.update(self._in_folder(folder, members))
        return [hashes[path] for path in paths]

    def _in_folder(self, folder: Path, paths: list[Path]) -> dict[Path, str]:
        file = self._folder / f"{xxhash.xxh3_64_hexdigest(os.fsencode(folder))}.json"
        records = _read(file)
        hashes, new = {}, {}
        for path in paths:
            try:
                before = _stamp(path)
                known = records.get(path.name)
                if known is not None and tuple(known[:3]) == before:
                    hashes[path] = known[3]
                    continue
                now = time.time_ns()
                hashes[path] = file_hash(path)
            except OSError as error:
                raise DataError(
                    f"{path}: cannot be read ({error.strerror})", "check the file and its permissions"
                ) from error
            if before[1] < now - _DOUBT_NANOSECONDS:
                new[path.name] = (*before, hashes[path])
        if new:
            # Two processes may write at once; the loser's records are made again next time. A read-only
            # cache costs a hash a start.
            with contextlib.suppress(OutputError):
                atomic_write_text(file, json.dumps({**records, **new}))
        return hashes


def file_hash(path: Path) -> str:
    """xxh3 (128 bits, hexadecimal) of a file's bytes."""
    hasher = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while chunk := file.read(_HASHED_BYTES):
            hasher.update(chunk)
    return str(hasher.hexdigest())


def _stamp(path: Path) -> tuple[int, int, int]:
    """Size, time of change (ns) and inode: what differs when a file was changed."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _read(file: Path) -> dict[str, _Record]:
    try:
        records = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(records, dict):
        return {}
    return {
        name: (*record,) for name, record in records.items() if isinstance(record, list) and len(record) == 4
    }
