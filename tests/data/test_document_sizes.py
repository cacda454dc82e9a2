"""Sizes measured in tasks are those of reading all text in one process, and so is where ranges begin."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data import (
    ByteTokenizer,
    InProcess,
    Preparation,
    TextFiles,
    expand_sources,
)
from insight.data.encoding import tasks
from insight.data.encoding.executors import Executor, InProcessExecutor, ProcessPool
from insight.data.encoding.tasks import RangeSizes, SizeTask, measure_documents, measure_part
from insight.data.sources import ranges
from insight.data.sources.decoding import Reading, TextRepairs
from insight.data.sources.ranges import RangedText, RangeStart
from insight.data.split import SIZES, sizes_of
from insight.runtime.errors import DataError

WORDS = st.sampled_from(["ab", " ", "\n", "éa", "日本", "\t", "word", ".\n\n", "😀"])
TEXTS = st.lists(WORDS, max_size=40).map("".join)


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_LEAST_TASK_BYTES", 60)


def ranged(folder: Path, names: list[str], invalid_text: str = "skip") -> RangedText:
    sources = expand_sources([str(folder / name) for name in names])
    return RangedText(sources, Reading("text", invalid_text), range_bytes=25)


def of_one_process(text: RangedText) -> tuple[npt.NDArray[np.void], list[RangeStart]]:
    sizes = np.fromiter(sizes_of(text.parts(TextRepairs())), dtype=SIZES)
    return sizes, text.starts


def measured(
    text: RangedText, executor: Executor | None = None
) -> tuple[npt.NDArray[np.void], list[RangeStart]]:
    sizes = measure_documents(executor or InProcessExecutor(), text)
    return sizes, text.starts


@settings(deadline=None, max_examples=40)
@given(text=TEXTS.filter(bool), lines=st.lists(TEXTS, min_size=1, max_size=12))
def test_any_text(tmp_path_factory: pytest.TempPathFactory, text: str, lines: list[str]) -> None:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "a.txt").write_bytes(b"\xff" + text.encode() + b"\xff\xff")
    (folder / "b.jsonl").write_text("".join(json.dumps({"text": each}) + "\n" for each in lines))
    (folder / "c.txt").write_text("the last of them, which has some words")
    names = ["a.txt", "b.jsonl", "c.txt"] if any(lines) else ["a.txt", "c.txt"]
    expected = of_one_process(ranged(folder, names))
    found = measured(ranged(folder, names))
    assert np.array_equal(found[0], expected[0])
    assert found[1] == expected[1]


def lines_of(folder: Path, count: int = 40) -> RangedText:
    lines = (json.dumps({"text": f"line {number} é"}) + "\n" for number in range(count))
    (folder / "lines.jsonl").write_text("".join(lines))
    return ranged(folder, ["lines.jsonl"])


def test_processes_measure_alike(tmp_path: Path) -> None:
    expected = of_one_process(lines_of(tmp_path))
    with ProcessPool(2) as pool:
        found = measured(lines_of(tmp_path), pool)
    assert np.array_equal(found[0], expected[0])
    assert found[1] == expected[1]


class Seen(InProcessExecutor):
    """Remembers the tasks, and does something to their results.

    Args:
        fault: Given the ranges of a task that has been done.
    """

    def __init__(self, fault: Callable[[list[RangeSizes]], None] = lambda ranges: None) -> None:
        self.tasks: list[SizeTask] = []
        self.fault = fault
        self.is_closed = False

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[Any, None, None]:
        assert function is measure_part
        try:
            for item in items:
                self.tasks.append(item)
                ranges = function(item)
                self.fault(ranges)
                for each in ranges:
                    each.sizes.flags.writeable = False  # as Dask hands them over
                yield ranges
        finally:
            self.is_closed = True


def test_the_text_is_read_by_tasks_and_not_once_more_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store with a validation part is that of one process, and this process read no document for it."""
    lines_of(tmp_path, 400)
    files = TextFiles(str(tmp_path / "lines.jsonl"), None, None, None, "text", 0.1, 0)
    monkeypatch.setattr(ranges, "RANGE_BYTES", 100)
    stores = []
    for number, executor in enumerate((InProcess(), _Tasks())):
        preparation = Preparation(files, ByteTokenizer(), tmp_path / str(number), executor=executor)
        if number:
            monkeypatch.setattr(RangedText, "parts", _must_not_be_read)
        stores.append(
            {
                (split, path.name): path.read_bytes()
                for split in ("train", "validation")
                for path in sorted(preparation.store(split).path.iterdir())
            }
        )
    assert stores[0] == stores[1]


def _must_not_be_read(text: RangedText, repairs: TextRepairs) -> Iterator[Any]:
    raise AssertionError("read in this process")


class _Tasks(InProcess):
    def workers_for(self, num_bytes: int) -> int:
        return 1

    def build(self, num_workers: int) -> InProcessExecutor:
        return InProcessExecutor()


def test_a_fault_in_a_task_moves_where_the_next_ranges_begin(tmp_path: Path) -> None:
    """Both what is returned and what the text learns come from the tasks alone."""
    expected, starts = of_one_process(lines_of(tmp_path))

    def one_character_more(ranges: list[RangeSizes]) -> None:
        ranges[0].sizes["characters"][-1] += 1

    seen = Seen(one_character_more)
    found, moved = measured(lines_of(tmp_path), seen)
    assert len(seen.tasks) > 3
    assert int(found["characters"].sum()) == int(expected["characters"].sum()) + len(seen.tasks)
    assert moved != starts or not any(start.character for start in starts)


def test_no_task_is_begun_after_one_has_failed(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n' * 40)
    lines_of(tmp_path, 400)
    seen = Seen()
    with pytest.raises(DataError, match=r"empty.jsonl: holds no text"):
        measured(ranged(tmp_path, ["empty.jsonl", "lines.jsonl"]), seen)
    whole = Seen()
    measured(lines_of(tmp_path, 400), whole)
    assert seen.is_closed
    assert len(seen.tasks) < len(whole.tasks)


def test_files_without_text_and_damaged_lines_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n' * 40)
    (tmp_path / "bad.jsonl").write_text('{"text": "some words"}\n' * 40 + "{ not json\n")
    for name, said in (("empty.jsonl", "empty.jsonl: holds no text"), ("bad.jsonl", "line 41 is not JSON")):
        for measure in (of_one_process, measured):
            with pytest.raises(DataError, match=said):
                measure(ranged(tmp_path, [name]))
