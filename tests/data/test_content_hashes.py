"""Unchanged files are not read again, changed ones always are."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from insight.data.sources import content_hashes
from insight.data.sources.content_hashes import ContentHashes
from insight.runtime.errors import DataError

OLD = 1_500_000_000


def hashes_of(folder: Path, paths: list[Path]) -> list[str]:
    """The hashes as a program finds them that starts an hour after the files were written."""
    return ContentHashes(folder / "cache", clock=lambda: time.time_ns() + 3600 * 10**9).of(paths)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose content was read."""
    names: list[str] = []
    original = content_hashes.file_hash

    def counted(path: Path) -> str:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(content_hashes, "file_hash", counted)
    return names


def make(folder: Path, name: str, content: str, seconds: int = OLD) -> Path:
    (folder / name).write_text(content)
    os.utime(folder / name, (seconds, seconds))
    return folder / name


def test_files_are_read_once(tmp_path: Path, reads: list[str]) -> None:
    paths = [make(tmp_path, "a.txt", "a"), make(tmp_path, "b.txt", "b")]
    first = hashes_of(tmp_path, paths)
    assert hashes_of(tmp_path, paths[::-1]) == first[::-1]
    assert reads == ["a.txt", "b.txt"]
    assert len(set(first)) == 2


def test_added_file_is_the_only_one_read(tmp_path: Path, reads: list[str]) -> None:
    paths = [make(tmp_path, "a.txt", "a")]
    hashes_of(tmp_path, paths)
    hashes_of(tmp_path, [*paths, make(tmp_path, "b.txt", "b")])
    assert reads == ["a.txt", "b.txt"]


@pytest.mark.parametrize("change", ["size", "time", "inode", "content alone"])
def test_changed_file_is_read_again(tmp_path: Path, reads: list[str], change: str) -> None:
    path = make(tmp_path, "a.txt", "a")
    before = hashes_of(tmp_path, [path])
    if change == "inode":
        os.replace(make(tmp_path, "new.txt", "b"), path)
    else:
        # An edit in place as rsync --inplace or a backup makes it keeps the size and sets the old time again.
        make(tmp_path, "a.txt", "bb" if change == "size" else "b", OLD + 1 if change == "time" else OLD)
    assert hashes_of(tmp_path, [path]) != before
    assert reads == ["a.txt", "a.txt"]


def test_file_written_just_now_is_in_doubt(tmp_path: Path, reads: list[str]) -> None:
    """It could be written again within the resolution of its time stamp."""
    path = tmp_path / "a.txt"
    path.write_text("a")
    ContentHashes(tmp_path / "cache").of([path])
    ContentHashes(tmp_path / "cache").of([path])
    assert reads == ["a.txt", "a.txt"]


def test_damaged_records_are_made_again(tmp_path: Path, reads: list[str]) -> None:
    path = make(tmp_path, "a.txt", "a")
    expected = hashes_of(tmp_path, [path])
    (record,) = (tmp_path / "cache" / "sources").iterdir()
    for damage in ("", "[]", '{"a.txt": 3}', '{"a.txt": [1, 2]}', '{"a.txt": [1, 2, 3, "x"]}'):
        record.write_text(damage)
        assert hashes_of(tmp_path, [path]) == expected


def test_file_that_vanished(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.txt"):
        ContentHashes(tmp_path).of([tmp_path / "gone.txt"])
