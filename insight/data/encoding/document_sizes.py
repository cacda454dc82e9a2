"""Measure in tasks the size of every document and where each range begins among the documents."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from insight.data.encoding.executors import Executor
from insight.data.encoding.tasks import group_ranges
from insight.data.sources.decoding import Reading, TextRepairs
from insight.data.sources.formats import TextPart
from insight.data.sources.ranges import RangedText, RangeStart, TextRange, require_text
from insight.data.split import SIZES, sizes_of


@dataclass(frozen=True)
class SizeTask:
    """Ranges whose documents are measured, in order; a task holds paths and no text."""

    ranges: tuple[TextRange, ...]
    reading: Reading

    def __str__(self) -> str:
        return f"{self.ranges[0]}"


class RangeSizes(NamedTuple):
    """Sizes of the documents, or parts of documents, in one range.

    Attributes:
        sizes: Size of each document in order, empty ones included.
        is_open: Whether the last document continues in the next range.
    """

    sizes: npt.NDArray[np.void]
    is_open: bool


def measure_documents(executor: Executor, text: RangedText) -> npt.NDArray[np.void]:
    """The sizes of all documents, for :class:`ValidationSplit`; sets ``text.starts`` as well.

    The tasks return the sizes directly, sixteen bytes per document.

    Raises:
        DataError: A file cannot be read or holds no text.
    """
    tasks = [
        SizeTask(tuple(text.ranges[first:stop]), text.reading)
        for first, stop in group_ranges(executor, text.ranges)
    ]
    # After an error, closing ensures that no further task begins.
    with contextlib.closing(_ranges_of(executor, tasks)) as measured:
        sizes, starts = _join(text, measured)
    text.starts = starts
    return sizes


def measure_part(task: SizeTask) -> list[RangeSizes]:
    """Measure the documents of each range of a task.

    Raises:
        DataError: A file cannot be read.
    """
    return [_measure(text_range, task.reading) for text_range in task.ranges]


def _measure(text_range: TextRange, reading: Reading) -> RangeSizes:
    is_open = False

    def watched() -> Iterator[TextPart]:
        nonlocal is_open
        for part in text_range.parts(reading, TextRepairs()):
            is_open = not part.is_last
            yield part

    sizes = np.fromiter(sizes_of(watched(), with_open=True), dtype=SIZES)
    return RangeSizes(sizes, is_open)


def _ranges_of(executor: Executor, tasks: list[SizeTask]) -> Generator[RangeSizes, None, None]:
    for measured in executor.map(measure_part, tasks):
        yield from measured


def _join(text: RangedText, measured: Iterator[RangeSizes]) -> tuple[npt.NDArray[np.void], list[RangeStart]]:
    """Sizes of whole documents without empty ones, and where each range begins among them."""
    documents: list[npt.NDArray[np.void]] = [np.zeros(0, dtype=SIZES)]
    starts: list[RangeStart] = []
    count, begun = 0, (0, 0)  # Finished documents; bytes and characters of the open one.
    source, has_text = None, True
    for text_range in text.ranges:
        if text_range.source is not source:
            require_text(source, has_text)
            source, has_text = text_range.source, False
        starts.append(RangeStart(count, begun[1]))
        sizes, is_open = next(measured)
        if not len(sizes):
            continue
        sizes = sizes.copy()  # Arrays from Dask are read-only.
        has_text = has_text or bool(sizes["characters"].any())
        sizes["bytes"][0] += begun[0]
        sizes["characters"][0] += begun[1]
        begun = (int(sizes["bytes"][-1]), int(sizes["characters"][-1])) if is_open else (0, 0)
        ended = sizes[: len(sizes) - is_open]
        documents.append(ended[ended["characters"] > 0])
        count += len(documents[-1])
    require_text(source, has_text)
    return np.concatenate(documents), starts
