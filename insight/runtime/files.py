"""Files that are either complete or absent: atomic writes, published folders, early checks for space."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from insight.runtime.errors import OutputError, nearest

LARGE_BYTES = 1 << 25
"""Freeing the space of a file of this size or more takes noticeable time."""
FREED = ".freed"
"""The end of the name of a file whose space is being freed."""
_PROBE_BYTES = 65_536
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""The errors of the system that say that a disk is full, or that this user may not write there."""
_FREE_SPACE = "free some space or choose another output folder"
# The errors of renaming a folder when another process has already published a folder of that name.
_ALREADY_PUBLISHED = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})


def missing_path_remedy(path: Path) -> str | None:
    """The hint for a user about a path that does not exist, or ``None`` if no hint applies."""
    for place, what in ((path.parent, f"its folder {path.parent}"), (path, "it")):
        if place.is_symlink() and not place.exists():
            return f"{what} is a link that leads nowhere (to {os.readlink(place)})"
    if not path.parent.is_dir():
        return f"its folder {path.parent} does not exist either"
    with os.scandir(path.parent) as entries:
        there = [entry.name for entry in entries if not entry.is_symlink() or os.path.exists(entry.path)]
    match = nearest(path.name, there)
    return f"did you mean {path.parent / match}?" if match else None


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that no reader sees half of it, even after a crash.

    See :func:`atomic_file`.
    """
    with atomic_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the name ``path`` when the block ends.

    The bytes go to a temporary file beside ``path``, are flushed to the disk, and take its name in one
    ``os.replace``. Missing parent folders are made.

    Raises:
        OutputError: The folder is read-only or full. An older file at ``path`` is then unchanged.
    """
    path = Path(path)
    temporary = _beside(path, ".tmp")
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            _unlink(temporary)
            raise
        flush(path.parent)


@contextlib.contextmanager
def freed_beside(path: Path) -> Iterator[None]:
    """Free the space of a large file that is replaced or removed in the block from another thread.

    Freeing the space takes about a fifth of the time of writing. Until the thread removes it, the file has a
    second name that ends with :data:`FREED`.
    """
    other = None
    with contextlib.suppress(OSError):  # the file is missing, or the file system has no hard links
        status = path.stat()
        if status.st_size >= LARGE_BYTES and status.st_nlink == 1:
            name = _beside(path, FREED)
            os.link(path, name)
            other = name
    try:
        yield
    finally:
        if other is not None:
            try:
                threading.Thread(target=_unlink, args=(other,)).start()
            except RuntimeError:  # no thread can be started: there are too many, or the program is ending
                _unlink(other)


def _beside(path: Path, end: str) -> Path:
    """A hidden name of a temporary file or folder beside ``path``."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{end}")


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):  # the next cleaning of the folder removes it
        path.unlink()


def atomic_write_text(path: Path, text: str) -> None:
    """:func:`atomic_write_bytes` for text: UTF-8, lone surrogates become ``?`` instead of an error."""
    atomic_write_bytes(path, text.encode("utf-8", errors="replace"))


def own_file(path: Path) -> None:
    """Replace a file that has further hard links by a copy, before it is changed in place.

    Copies of a folder may share its files (``cp -al``, backups), and a change would reach them too.
    """
    if path.is_file() and path.stat().st_nlink > 1:
        with writing_to(path), path.open("rb") as original, atomic_file(path) as copy:
            shutil.copyfileobj(original, copy)


def publish_folder(temporary: Path, final: Path) -> bool:
    """Flush everything under ``temporary`` and rename it to ``final`` in one step.

    Both must be on one file system. ``final`` appears complete or not at all, even after a power cut.

    Returns:
        Whether ``temporary`` became ``final``. If not, ``final`` existed already, for instance because
        another process was faster: both are unchanged, and the caller removes ``temporary``.
    """
    temporary, final = Path(temporary), Path(final)
    with writing_to(final):
        for folder, _, names in os.walk(temporary, topdown=False):
            for name in (*names, ""):
                flush(Path(folder, name))
        final.parent.mkdir(parents=True, exist_ok=True)
        # rename(2) replaces an empty folder, so an existing one is looked for first. One that appears after
        # this look was published complete, so it is not empty and makes the rename fail.
        if final.exists():
            return False
        try:
            os.rename(temporary, final)
        except OSError as error:
            if error.errno in _ALREADY_PUBLISHED and final.exists():
                return False
            raise
        flush(final.parent)
    return True


def ensure_writable(folder: Path, needed_bytes: int = 1 << 20) -> None:
    """Check before any work that results can be written to ``folder``, and leave nothing behind.

    Where ``folder`` does not exist yet, its nearest existing parent is tried with a small file. Permission
    bits are not enough, since they do not bind root and do not show a read-only mount.

    Raises:
        OutputError: ``folder`` is a file, read-only, or has less than ``needed_bytes`` left.
    """
    existing = Path(folder).absolute()
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise OutputError(f"{folder}: {existing} is not a folder", "choose another output folder")
    with writing_to(Path(folder)):
        with tempfile.TemporaryFile(dir=existing, prefix=".insight-probe-") as file:
            file.write(b"\0" * _PROBE_BYTES)
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        problem = f"{folder}: {free / 1e6:.1f} MB left on the disk, {needed_bytes / 1e6:.1f} MB needed"
        raise OutputError(problem, _FREE_SPACE)


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn every ``OSError`` inside the block into an :class:`OutputError` about ``path``."""
    try:
        yield
    except OSError as error:
        raise output_error(error, path) from error


def output_error(error: OSError, path: object) -> OutputError:
    """The line for a user about output that cannot be written to ``path``."""
    if error.errno in FULL:
        return OutputError(f"{path}: the disk is full", _FREE_SPACE)
    if error.errno in READ_ONLY:
        return OutputError(f"{path}: this place is read-only for you", "choose another output folder")
    reason = error.strerror or str(error)
    return OutputError(f"{path}: cannot be written ({reason})", "choose another output folder")


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    # Windows cannot open a folder; its file system records renames in a journal.
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_new(folder: Path, option: str = "--output") -> None:
    """Refuse an output folder that exists with an :class:`OutputError`, before any work."""
    if folder.exists():
        remedy = "choose another name, or remove it first"
        raise OutputError("exists already", remedy, option=option, value=folder)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes the name ``folder`` when the block ends without an error."""
    require_new(folder, "the output folder")
    temporary = _beside(folder, ".tmp")
    try:
        with writing_to(folder):
            temporary.mkdir(parents=True)
            yield temporary
        if not publish_folder(temporary, folder):
            require_new(folder, "the output folder")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
