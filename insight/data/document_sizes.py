"""How long every document is, and where each range begins among them: measured in tasks by any executor."""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from insight.data.encode_tasks import content_of_ranges, require_folder
from insight.data.store.executors import Executor
from insight.data.task_groups import group_ranges
from insight.data.text_decoding import Reading, TextRepairs
from insight.data.text_parts import TextPart
from insight.data.text_ranges import RangedText, RangeStart, TextRange, require_text
from insight.data.validation_split import SIZES, sizes_of
from insight.runtime.errors import DataError

_FOLDER = "sizes"


@dataclass(frozen=True)
class SizeTask:
    """Ranges whose documents are measured; it holds paths and hashes, and no text.

    Attributes:
        ranges: What is read, in order.
        contents: Content hash of the file of each range.
        reading: How bytes become documents.
        folder: Where the result goes, under the task's :attr:`key`.
    """

    ranges: tuple[TextRange, ...]
    contents: tuple[str, ...]
    reading: Reading
    folder: Path

    @functools.cached_property
    def key(self) -> str:
        """A hash of everything that decides the result."""
        content = {"sizes": content_of_ranges(self.ranges, self.contents, self.reading)}
        return str(xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode("utf-8")))

    @property
    def output(self) -> Path:
        """The file of the result."""
        return self.folder / f"{self.key}.npz"

    def __str__(self) -> str:
        return f"{self.ranges[0]}"


class _Pieces(NamedTuple):
    """What lies of documents in one range.

    Attributes:
        sizes: Of each of them, in order, empty ones included.
        is_open: Whether the last one goes on in the next range.
    """

    sizes: npt.NDArray[np.void]
    is_open: bool


def measure_documents(
    executor: Executor, text: RangedText, contents: Mapping[Path, str], folder: Path
) -> npt.NDArray[np.void]:
    """The sizes of all documents, as :class:`ValidationSplit` wants them; ``text`` learns where ranges begin.

    Args:
        executor: Runs the tasks.
        text: What to measure.
        contents: Content hash of each file.
        folder: Where tasks leave their results meanwhile; every worker sees it under this path.

    Raises:
        DataError: A file cannot be read or holds no text, or the result of a task is missing.
    """
    parts = folder.absolute() / _FOLDER
    parts.mkdir()
    try:
        tasks = [
            SizeTask(
                tuple(text.ranges[first:stop]),
                tuple(contents[each.source.path] for each in text.ranges[first:stop]),
                text.reading,
                parts,
            )
            for first, stop in group_ranges(executor, text.ranges)
        ]
        sizes, starts = _join(text, _results(executor, tasks))
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    text.starts = starts
    return sizes


def measure_part(task: SizeTask) -> str:
    """Measure the documents of a task and leave the result at :attr:`SizeTask.output`, also when run again.

    Returns:
        The key of the task.

    Raises:
        DataError: A file cannot be read, or this machine does not see the files of the task.
        OSError: The result cannot be written.
    """
    if task.output.is_file():
        return task.key
    require_folder(task.folder)
    pieces = [_measure(text_range, task.reading) for text_range in task.ranges]
    descriptor, name = tempfile.mkstemp(prefix=f".{task.key}.", suffix=".npz", dir=task.folder)
    with os.fdopen(descriptor, "wb") as file:
        np.savez(
            file,
            sizes=np.concatenate([each.sizes for each in pieces]),
            counts=np.array([len(each.sizes) for each in pieces]),
            is_open=np.array([each.is_open for each in pieces]),
        )
    os.replace(name, task.output)
    return task.key


def _measure(text_range: TextRange, reading: Reading) -> _Pieces:
    is_open = False

    def watched() -> Iterator[TextPart]:
        nonlocal is_open
        for part in text_range.parts(reading, TextRepairs()):
            is_open = not part.is_last
            yield part

    sizes = np.fromiter(sizes_of(watched(), with_open=True), dtype=SIZES)
    return _Pieces(sizes, is_open)


def _results(executor: Executor, tasks: list[SizeTask]) -> Iterator[_Pieces]:
    """What was measured, range by range in order."""
    keys = executor.map(measure_part, tasks)
    for task in tasks:
        if next(keys, None) != task.key or not task.output.is_file():
            raise DataError(f"{task}: the result of its task was lost", "start again")
        with np.load(task.output) as result:
            arrays: dict[str, npt.NDArray[Any]] = {name: result[name] for name in result.files}
        task.output.unlink()
        ends = np.cumsum(arrays["counts"])
        for sizes, is_open in zip(np.split(arrays["sizes"], ends[:-1]), arrays["is_open"], strict=True):
            yield _Pieces(sizes, bool(is_open))


def _join(text: RangedText, measured: Iterator[_Pieces]) -> tuple[npt.NDArray[np.void], list[RangeStart]]:
    """Sizes of whole documents, empty ones left out, and where each range begins among them."""
    documents: list[npt.NDArray[np.void]] = [np.zeros(0, dtype=SIZES)]
    starts: list[RangeStart] = []
    count, begun = 0, (0, 0)  # finished documents; bytes and characters of the one that is open
    source, has_text = None, True
    for text_range in text.ranges:
        if text_range.source is not source:
            require_text(source, has_text)
            source, has_text = text_range.source, False
        starts.append(RangeStart(count, begun[1]))
        sizes, is_open = next(measured)
        if not len(sizes):
            continue
        has_text = has_text or bool(sizes["characters"].any())
        sizes["bytes"][0] += begun[0]
        sizes["characters"][0] += begun[1]
        begun = (int(sizes["bytes"][-1]), int(sizes["characters"][-1])) if is_open else (0, 0)
        ended = sizes[: len(sizes) - is_open]
        documents.append(ended[ended["characters"] > 0])
        count += len(documents[-1])
    require_text(source, has_text)
    return np.concatenate(documents), starts
