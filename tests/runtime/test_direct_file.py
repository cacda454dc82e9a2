"""Files written past the cache: the same bytes as an ordinary write, wherever and however it goes."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from insight.runtime import direct_file
from insight.runtime.direct_file import CAN_WRITE_DIRECTLY, DISK_BLOCK, DirectFile
from insight.runtime.errors import OutputError
from insight.runtime.files import atomic_file

pytestmark = pytest.mark.skipif(not CAN_WRITE_DIRECTLY, reason="this system always writes through its cache")
MEBIBYTE = 1 << 20


def at_page(content: bytes, offset: int = 0) -> memoryview:
    """``content`` in memory of its own, ``offset`` bytes behind the beginning of a page."""
    memory = memoryview(mmap.mmap(-1, len(content) + offset))
    memory[offset:] = content
    return memory[offset:]


def written(path: Path, parts: Sequence[bytes | memoryview]) -> bool:
    """Write ``parts``; whether the bytes went past the cache to the end."""
    with DirectFile(path) as file:
        for part in parts:
            assert file.write(part) == len(part)
        is_direct = file.is_direct
        file.flush()
    return is_direct


def some_parts(seed: int) -> list[bytes | memoryview]:
    source = random.Random(seed)
    parts: list[bytes | memoryview] = []
    for _ in range(source.randint(1, 12)):
        kind = source.choice(["small", "block", "large", "large, aligned", "huge, aligned"])
        if kind == "small":
            parts.append(source.randbytes(source.randint(0, 300)))
        elif kind == "block":
            parts.append(at_page(source.randbytes(DISK_BLOCK * source.randint(1, 5))))
        else:
            size = source.randint(MEBIBYTE, (12 if "huge" in kind else 3) * MEBIBYTE)
            parts.append(at_page(source.randbytes(size), 0 if "aligned" in kind else 64))
    return parts


@pytest.mark.parametrize("seed", range(12))
def test_any_parts_in_any_order(tmp_path: Path, seed: int) -> None:
    parts = some_parts(seed)
    written(tmp_path / "file", parts)
    assert (tmp_path / "file").read_bytes() == b"".join(parts)


def test_what_lies_right_is_written_from_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[int] = []
    real = os.writev

    def spy(file: int, parts: Sequence[memoryview]) -> int:
        places.extend(direct_file._address(part) for part in parts if len(part) >= MEBIBYTE)
        return real(file, parts)

    monkeypatch.setattr(os, "writev", spy)
    right, wrong = at_page(bytes(2 * MEBIBYTE)), at_page(bytes(2 * MEBIBYTE), 64)
    written(tmp_path / "file", [bytes(DISK_BLOCK), right, wrong])
    assert direct_file._address(right) in places
    assert direct_file._address(wrong) not in places


def num_cached(path: Path) -> int:
    """Bytes of a file that are in the system's cache."""
    library = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        pages = (ctypes.c_ubyte * (len(memory) // mmap.PAGESIZE))()
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        failed = library.mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(memory)), pages)
        assert not failed, os.strerror(ctypes.get_errno())
        return sum(page & 1 for page in pages) * mmap.PAGESIZE


def file_system_of(folder: Path) -> str:
    mounts = [each for each in psutil.disk_partitions(all=True) if folder.is_relative_to(each.mountpoint)]
    return max(mounts, key=lambda each: len(each.mountpoint)).fstype


def test_the_cache_is_left_to_others(tmp_path: Path) -> None:
    """An ordinary write shows that this test sees the cache."""
    if file_system_of(tmp_path) not in ("ext4", "xfs"):
        pytest.skip("this file system may keep in the cache what it likes")
    content = bytes(16 * MEBIBYTE)
    assert written(tmp_path / "direct", [content])
    (tmp_path / "ordinary").write_bytes(content)
    assert num_cached(tmp_path / "ordinary") == len(content)
    assert num_cached(tmp_path / "direct") == 0


def refusing(real: Callable[..., int]) -> Callable[..., int]:
    """A place that takes the first bytes only, and then none that go past the cache."""
    has_taken = []

    def write(file: int, parts: Sequence[memoryview]) -> int:
        import fcntl

        if not has_taken:
            has_taken.append(True)
            return real(file, [parts[0][:5000] if len(parts[0]) else parts[1][:5000]])
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(file, parts)

    return write


def in_small_pieces(real: Callable[..., int]) -> Callable[..., int]:
    """A place that takes a block of each part at a time."""

    def write(file: int, parts: Sequence[memoryview]) -> int:
        return real(file, [next(part for part in parts if len(part))[:DISK_BLOCK]])

    return write


@pytest.mark.parametrize("place", [refusing, in_small_pieces])
def test_places_that_do_not_take_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Callable[..., Callable[..., int]]
) -> None:
    parts = [b"begin", at_page(random.Random(0).randbytes(3 * MEBIBYTE)), b"end" * 9_000_000]
    monkeypatch.setattr(os, "writev", place(os.writev))
    written(tmp_path / "file", parts)
    assert (tmp_path / "file").read_bytes() == b"".join(parts)


def test_a_file_system_without_it_gets_an_ordinary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    real = fcntl.fcntl

    def cannot(file: int, command: int, flags: int = 0) -> int:
        if command == fcntl.F_SETFL and flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(file, command, flags)

    monkeypatch.setattr(fcntl, "fcntl", cannot)
    parts = some_parts(3)
    assert not written(tmp_path / "file", parts)
    assert (tmp_path / "file").read_bytes() == b"".join(parts)


@pytest.mark.parametrize("failing", [1, 2])
def test_without_threads_every_byte_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """The pool keeps what it could not begin, and would begin it later."""
    start, num_started = threading.Thread.start, [0]

    def fails_once(self: threading.Thread) -> None:
        num_started[0] += 1
        if num_started[0] == failing:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", fails_once)
    parts: list[bytes | memoryview] = [random.Random(n).randbytes(5 * MEBIBYTE) for n in range(8)]
    written(tmp_path / "file", parts)
    assert num_started[0] == 1
    assert (tmp_path / "file").read_bytes() == b"".join(parts)


def test_nothing_is_written_after_the_end(tmp_path: Path) -> None:
    with DirectFile(tmp_path / "file") as file:
        file.flush()
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)  # gets the number that is free now
    file.write(b"late")
    with pytest.raises(ValueError, match="file descriptor"):
        file.flush()
    os.close(other)
    assert (tmp_path / "other").read_bytes() == b""


def test_an_existing_file_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        DirectFile(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_as_an_atomic_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = tmp_path / "file", random.Random(1).randbytes(9 * MEBIBYTE + 17)
    with atomic_file(path, is_large=True) as file:
        file.write(content)
        assert not path.exists()
    assert path.read_bytes() == content
    (tmp_path / "ordinary").touch()
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(OutputError, match="the disk is full"), atomic_file(path, is_large=True) as file:
        file.write(b"new" * MEBIBYTE * 4)
    assert path.read_bytes() == content
    assert sorted(child.name for child in tmp_path.iterdir()) == ["file", "ordinary"]
