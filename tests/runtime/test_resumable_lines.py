"""Lines that are written over several processes: each once, in order, and only of one work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.runtime.errors import OutputError
from insight.runtime.resumable_lines import resumable_lines

LINES = [f"line {number} \u2028 é" for number in range(12)]


class Killed(BaseException):
    """The process ends here."""


def _write(path: Path, stop_after: int, torn_bytes: int = 0) -> None:
    """Write blocks of two lines until ``stop_after`` blocks; then the process ends, within a line."""
    with resumable_lines(path, {"input": "a"}) as lines:
        for block in range(stop_after):
            if lines.num_done >= len(LINES):
                break
            lines.append(LINES[lines.num_done : lines.num_done + 2])
            assert block < stop_after
        if lines.num_done < len(LINES):
            with lines.part.open("ab") as file:
                file.write(LINES[lines.num_done].encode()[:torn_bytes])
            raise Killed
        lines.finish()


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=6))
def test_every_line_is_there_once_wherever_it_ended(
    tmp_path_factory: pytest.TempPathFactory, ends: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("lines") / "out.txt"
    for stop_after, torn_bytes in [*ends, (99, 0)]:
        if path.exists():
            break
        try:
            _write(path, stop_after, torn_bytes)
        except Killed:
            assert not path.exists()
    assert path.read_text(encoding="utf-8").split("\n") == [*LINES, ""]
    assert [file.name for file in path.parent.iterdir()] == ["out.txt"]


def test_other_work_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with pytest.raises(Killed):
        _write(path, 2)
    for work, words in (
        ({"input": "b"}, "another input:"),
        ({"input": "a", "--beam": 3}, "another --beam:"),
        ({}, "another input:"),
    ):
        with pytest.raises(OutputError, match=words), resumable_lines(path, work):
            pass
    (tmp_path / "out.txt.part.json").unlink()
    with pytest.raises(OutputError, match="nothing tells"), resumable_lines(path, {"input": "a"}):
        pass
    assert (tmp_path / "out.txt.part").read_text(encoding="utf-8").count("\n") == 4
    with resumable_lines(path, None) as lines:
        assert lines.num_done == 0


def test_an_existing_file_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"), resumable_lines(path, {}):
        pass
    path.unlink()
    with resumable_lines(path, {}) as lines:
        lines.append(["a"])
        path.write_text("mine")
        with pytest.raises(OutputError, match="exists already"):
            lines.finish()
    assert path.read_text() == "mine"


def test_a_copy_that_shares_the_file_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with pytest.raises(Killed):
        _write(path, 1, 3)
    os.link(tmp_path / "out.txt.part", tmp_path / "copy")
    before = (tmp_path / "copy").read_bytes()
    _write(path, 99)
    assert (tmp_path / "copy").read_bytes() == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with resumable_lines(tmp_path / "out.txt", {}) as lines:
        lines.part = Path("/dev/full")
        with pytest.raises(OutputError, match="the disk is full"):
            lines.append(LINES)
