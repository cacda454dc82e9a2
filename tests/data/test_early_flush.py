"""A store's bytes do not depend on when they go to the disk; a disk that fails on the way is told."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from insight.data import ByteTokenizer, TokenStore
from insight.data.encoding.documents import encode_documents
from insight.data.store import StoreCache, StoreWriter
from insight.data.store import writer as writer_module
from insight.runtime.errors import OutputError

DOCUMENTS = [f"document {number} " * 20 for number in range(40)]


def write(folder: Path, is_kept: bool = True) -> dict[str, bytes]:
    folder.mkdir(exist_ok=True)
    writer = StoreWriter(folder, ByteTokenizer(), shard_tokens=1000, is_kept=is_kept)
    try:
        encode_documents(DOCUMENTS, writer, batch_bytes=500)
        writer.close({})
    finally:
        writer.abandon()
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class Disk:
    """Counts flushes, and fails at one of them.

    Args:
        fails_at: Number of that flush; never if not given.
    """

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at = fails_at
        self.num_flushes = 0
        self.threads: set[int] = set()

    def __call__(self, descriptor: int) -> None:
        os.fstat(descriptor)  # it is open
        self.threads.add(threading.get_ident())
        self.num_flushes += 1
        if self.num_flushes == self.fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_bytes_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = write(tmp_path / "at the end")
    disk = Disk()
    monkeypatch.setattr(writer_module, "_FLUSHED_BYTES", 300)
    monkeypatch.setattr(writer_module, "_synchronize", disk)
    before = threading.active_count()
    assert write(tmp_path / "early") == expected
    assert threading.active_count() == before
    # One a shard at least; more where one has ended when enough is there for the next.
    assert disk.num_flushes >= sum(name.endswith(".bin") for name in expected)
    assert threading.get_ident() not in disk.threads
    TokenStore(tmp_path / "early").verify()


def test_what_is_thrown_away_is_not_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    monkeypatch.setattr(writer_module, "_FLUSHED_BYTES", 300)
    monkeypatch.setattr(writer_module, "_synchronize", disk)
    write(tmp_path / "part", is_kept=False)
    assert disk.num_flushes == 0


@pytest.mark.parametrize("fails_at", [1, 4])
def test_a_flush_that_fails_ends_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """The system tells a failed write to one flush only, so nobody else would ever hear of it."""
    monkeypatch.setattr(writer_module, "_FLUSHED_BYTES", 300)
    monkeypatch.setattr(writer_module, "_synchronize", Disk(fails_at))
    with pytest.raises(OutputError, match="the disk is full"):
        StoreCache(tmp_path).find_or_build("key", _build, "text")
    assert [path.suffix for path in (tmp_path / "stores").iterdir()] == [".lock"]


def _build(folder: Path) -> None:
    write(folder)
