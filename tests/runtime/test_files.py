"""Files are complete or not there."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from insight.runtime import files
from insight.runtime.errors import OutputError
from insight.runtime.files import (
    atomic_write_bytes,
    atomic_write_text,
    ensure_writable,
    freed_beside,
    publish_folder,
    writing_to,
)


def test_write_makes_parents_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    atomic_write_bytes(path, b"one")
    atomic_write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert [child.name for child in path.parent.iterdir()] == ["file.bin"]


def test_text_with_lone_surrogates(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "file", "é \ud800 ü")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "é ? ü"


@pytest.mark.skipif(os.name == "nt", reason="permission bits")
def test_mode_is_that_of_an_ordinary_file(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "ours", "x")
    (tmp_path / "theirs").write_text("x")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "theirs")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_failed_write_keeps_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    atomic_write_bytes(path, b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "write":
        real = Path.open

        def open_on_a_full_disk(self: Path, mode: str) -> object:
            file = real(self, mode, buffering=0)

            class Full:
                def __enter__(self) -> Full:
                    return self

                def __exit__(self, *_: object) -> None:
                    file.close()

                write = full

            return Full()

        monkeypatch.setattr(Path, "open", open_on_a_full_disk)
    else:
        monkeypatch.setattr(files.os, call, full)
    with pytest.raises(OutputError, match=r"file: the disk is full: free some space"):
        atomic_write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [child.name for child in tmp_path.iterdir()] == ["file"]


def test_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """The twin below shows that this test notices an ordinary write."""
    assert _sizes_seen_by_a_reader(tmp_path / "file", atomic_write_bytes) == {1_000_000}


def test_reader_sees_half_of_an_ordinary_write(tmp_path: Path) -> None:
    def in_two_halves(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            threading.Event().wait(0.001)
            file.write(data[len(data) // 2 :])

    assert len(_sizes_seen_by_a_reader(tmp_path / "file", in_two_halves)) > 1


def _sizes_seen_by_a_reader(path: Path, write: object) -> set[int]:
    data = b"x" * 1_000_000
    atomic_write_bytes(path, data)
    sizes: set[int] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            sizes.add(len(path.read_bytes()))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        write(path, data)  # type: ignore[operator]
    done.set()
    reader.join()
    return sizes


@pytest.mark.parametrize("kind", ["large", "small", "two names", "no thread"])
@pytest.mark.parametrize("removes", [True, False])
def test_space_is_given_back_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, removes: bool
) -> None:
    monkeypatch.setattr(files, "LARGE_BYTES", 4 if kind == "small" else 3)
    path, new = tmp_path / "file", tmp_path / "new"
    path.write_bytes(b"old")
    new.write_bytes(b"new")
    names = {"file"} if not removes else {"new"}
    if kind == "two names":
        os.link(path, tmp_path / "kept")
        names |= {"kept"}
    may_free, freeing = threading.Event(), []
    unlink = files._unlink

    def held_back(other: Path) -> None:
        freeing.append(other)
        assert may_free.wait(10)
        unlink(other)

    def no_thread(self: threading.Thread) -> None:
        may_free.set()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(files, "_unlink", held_back)
    if kind == "no thread":
        monkeypatch.setattr(threading.Thread, "start", no_thread)
    with freed_beside(path):
        path.unlink() if removes else os.replace(new, path)
    assert not path.exists() if removes else path.read_bytes() == b"new"
    if kind == "large":
        held = {name for name in os.listdir(tmp_path) if name.endswith(files.FREED)}
        assert len(held) == 1
    may_free.set()
    end = time.monotonic() + 10
    while set(os.listdir(tmp_path)) != names:
        assert time.monotonic() < end, os.listdir(tmp_path)
    assert bool(freeing) is (kind in ("large", "no thread"))


def test_what_is_not_there_needs_no_space(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), freed_beside(tmp_path / "file"):
        (tmp_path / "file").unlink()


def test_publish_moves_a_complete_folder(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    (temporary / "deep").mkdir(parents=True)
    (temporary / "deep" / "file").write_text("content")
    assert publish_folder(temporary, tmp_path / "new" / "final")
    assert (tmp_path / "new" / "final" / "deep" / "file").read_text() == "content"
    assert not temporary.exists()


@pytest.mark.parametrize("final_is_empty", [True, False])
def test_publish_never_replaces(tmp_path: Path, final_is_empty: bool) -> None:
    temporary, final = tmp_path / "temporary", tmp_path / "final"
    temporary.mkdir()
    (temporary / "file").write_text("late")
    final.mkdir()
    if not final_is_empty:
        (final / "file").write_text("early")
    assert not publish_folder(temporary, final)
    assert (temporary / "file").exists()
    assert final_is_empty or (final / "file").read_text() == "early"


def test_publish_loses_a_race_between_look_and_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, final = tmp_path / "temporary", tmp_path / "final"
    temporary.mkdir()
    (temporary / "file").write_text("late")
    real = os.rename

    def beaten(source: Path, target: Path) -> None:
        target.mkdir()
        (target / "file").write_text("early")
        real(source, target)

    monkeypatch.setattr(files.os, "rename", beaten)
    assert not publish_folder(temporary, final)
    assert (final / "file").read_text() == "early"


def test_of_many_publishers_exactly_one_wins(tmp_path: Path) -> None:
    final = tmp_path / "final"
    start = threading.Barrier(8)
    wins: list[int] = []

    def publish(number: int) -> None:
        temporary = tmp_path / f"temporary-{number}"
        temporary.mkdir()
        (temporary / "number").write_text(str(number))
        start.wait()
        if publish_folder(temporary, final):
            wins.append(number)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert (final / "number").read_text() == str(wins[0])


def test_writable_folder_is_left_as_it_was(tmp_path: Path) -> None:
    ensure_writable(tmp_path)
    ensure_writable(tmp_path / "not" / "there" / "yet")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="is not a folder"):
            ensure_writable(folder)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a place that even root cannot write to")
def test_folder_that_even_root_cannot_write_to() -> None:
    with pytest.raises(OutputError, match=r"/proc/self/runs: .*choose another output folder"):
        ensure_writable(Path("/proc/self/runs"))


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="root may write everywhere")
def test_folder_without_write_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="read-only"):
        ensure_writable(tmp_path / "run")
    tmp_path.chmod(0o700)


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"MB left on the disk, 1000000000000.0 MB needed"):
        ensure_writable(tmp_path, needed_bytes=10**18)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OutputError, match="the disk is full"):
        ensure_writable(tmp_path)


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EROFS, "read-only"), (errno.EACCES, "read-only"), (errno.EDQUOT, "full"), (errno.EIO, "Input")],
)
def test_system_errors_become_one_line(number: int, words: str) -> None:
    with pytest.raises(OutputError, match=words) as caught, writing_to(Path("runs/x")):
        raise OSError(number, os.strerror(number))
    assert "\n" not in str(caught.value)
    assert caught.value.problem.startswith("runs/x: ")


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write_bytes(path, b"old")
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from insight.runtime import files\n"
        "files.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"files.atomic_write_bytes(Path({str(path)!r}), b'new')\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode != 0
    assert path.read_bytes() == b"old"
