"""Content hashes of source files, cached so that unchanged files are not read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xxhash

from insight.data.sources.decoding import unreadable
from insight.runtime.errors import DataError, OutputError
from insight.runtime.files import atomic_write_text

# A file that changed shortly before it was hashed could change again without a new time stamp, so its hash is
# not cached (git calls such an index entry "racily clean").
_DOUBT_NANOSECONDS = 2_000_000_000


class ContentHashes:
    """The xxh3 hashes (128 bits) of files, cached by path, size, both time stamps and inode.

    The cache holds one file of records for each folder of sources. ``clock`` returns nanoseconds.
    """

    def __init__(self, cache_dir: Path, clock: Callable[[], int] = time.time_ns) -> None:
        self._folder = cache_dir / "sources"
        self._clock = clock

    def of(self, paths: Sequence[Path]) -> list[str]:
        """The content hash of each file as it is on the disk; a ``DataError`` names an unreadable one."""
        if isinstance(paths, (str, bytes, os.PathLike)):
            raise DataError("it is one path", "give a list of paths", option="paths", value=paths)
        by_folder: dict[Path, list[Path]] = defaultdict(list)
        for path in paths:
            by_folder[path.parent].append(path)
        hashes: dict[Path, str] = {}
        for folder, members in by_folder.items():
            file = self._folder / f"{xxhash.xxh3_64_hexdigest(os.fsencode(folder))}.json"
            records: dict[str, list[Any]] = {}
            with contextlib.suppress(OSError, ValueError, AttributeError):
                found = json.loads(file.read_bytes()).items()
                # Records of an older form are dropped.
                records = {name: each for name, each in found if isinstance(each, list) and len(each) == 5}
            new: dict[str, list[Any]] = {}
            for path in members:
                try:
                    stamp = file_stamp(path)
                    *known, hashes[path] = records.get(path.name, [""])
                    if known == stamp:
                        continue
                    now = self._clock()
                    hashes[path] = file_hash(path)
                except OSError as error:
                    raise unreadable(str(path), error) from error
                if max(stamp[1:3]) < now - _DOUBT_NANOSECONDS:
                    new[path.name] = [*stamp, hashes[path]]
            if new:
                # If two processes write at once, lost records are made again next time. With a read-only
                # cache, every start hashes again.
                with contextlib.suppress(OutputError):
                    atomic_write_text(file, json.dumps({**records, **new}))
        return [hashes[path] for path in paths]


def file_hash(path: Path) -> str:
    """xxh3 hash (128 bits, hexadecimal) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def file_stamp(path: Path) -> list[int]:
    """Size, modification time and status change time (ns), and inode.

    Copying programs (rsync, backups) restore the modification time, so an edit in place may keep it and the
    size; the status change time cannot be set.
    """
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
