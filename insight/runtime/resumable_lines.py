"""A file of lines that takes long to write, and whose writing continues after the process was killed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from insight.runtime.errors import OutputError
from insight.runtime.files import flush, own_file, require_new, writing_to
from insight.runtime.json_files import plain, read_object, write_object

_BLOCK_BYTES = 1 << 20


class ResumableLines:
    """Lines on their way to a file, made by :func:`resumable_lines`.

    Attributes:
        part: The file that holds them until all are there.
        num_done: Lines that it holds.
    """

    def __init__(self, path: Path, part: Path, num_done: int) -> None:
        self._path = path
        self.part, self.num_done = part, num_done

    def append(self, lines: Sequence[str]) -> None:
        """Add lines without their ends; they are on the disk when the call returns.

        Raises:
            OutputError: The disk is full, or the file cannot be written.
        """
        with writing_to(self.part), self.part.open("ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode("utf-8", errors="replace"))
            file.flush()
            os.fsync(file.fileno())
        self.num_done += len(lines)

    def finish(self) -> None:
        """Give the file its name, since all lines are there.

        Raises:
            OutputError: A file of this name has appeared meanwhile.
        """
        require_new(self._path)
        with writing_to(self._path):
            os.replace(self.part, self._path)
            flush(self._path.parent)


@contextlib.contextmanager
def resumable_lines(path: Path, work: Mapping[str, Any] | None) -> Iterator[ResumableLines]:
    """Write lines to ``path``, or go on with it where an earlier process was ended.

    Until :meth:`ResumableLines.finish`, the lines are in ``path.part``, and ``path.part.json`` tells what
    they are the result of. A line that was cut off in its middle is written again. Where nothing was written,
    nothing is left behind.

    Args:
        path: The file to make. It must not exist.
        work: Everything that decides the lines, by a name that the user understands. Lines of other work are
            not continued. ``None`` begins anew, for work that cannot be told from other work.

    Raises:
        OutputError: The file exists, another process is writing it, its beginning belongs to other work, or
            the place cannot be written.
    """
    require_new(path)
    part, about, lock_path = (path.with_name(f"{path.name}.part{end}") for end in ("", ".json", ".lock"))
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_path)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            problem = "another process is writing it"
            raise OutputError(problem, "wait for it", option="--output", value=path) from error
    try:
        if work is None:
            part.unlink(missing_ok=True)
        _require_same_work(part, about, plain(work or {}))
        with writing_to(part):
            if work is not None and not about.is_file():
                write_object(about, work)
            lines = ResumableLines(path, part, _drop_torn_line(part))
        try:
            yield lines
        finally:
            if not lines.num_done:
                part.unlink(missing_ok=True)
            if not part.exists():
                about.unlink(missing_ok=True)
    finally:
        lock_path.unlink(missing_ok=True)
        lock.release()


def _require_same_work(part: Path, about: Path, work: dict[str, Any]) -> None:
    """Refuse to go on with lines that are the result of other work."""
    if not part.exists():
        about.unlink(missing_ok=True)  # left by a process that ended before its first line, or after its last
        return
    begun = read_object(about)
    different = [name for name in work | begun if begun.get(name) != work.get(name)]
    if not begun:
        problem = f"{part} is there, and nothing tells what it is the beginning of"
    elif different:
        problem = f"{part} was begun with another {' and another '.join(different)}"
    else:
        return
    remedy = f"repeat the command that began it, choose another name, or remove {part} to begin anew"
    raise OutputError(problem, remedy)


def _drop_torn_line(part: Path) -> int:
    """Cut the file behind its last complete line; returns how many lines it has then."""
    own_file(part)
    with part.open("ab+") as file:
        file.seek(0)
        num_lines = end = position = 0
        while block := file.read(_BLOCK_BYTES):
            num_lines += block.count(b"\n")
            last = block.rfind(b"\n")
            end = position + last + 1 if last >= 0 else end
            position += len(block)
        if end < position:
            file.truncate(end)
    return num_lines
