"""Encode text in tasks that any executor may run, and put their results together in the order of the text."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from insight.data.encode_tasks import EncodeTask, Selection, encode_part
from insight.data.encoding_progress import EncodingProgress
from insight.data.sources.decoding import TextRepairs
from insight.data.sources.ranges import RangedText, RangeStart, TextRange, joined_ranges
from insight.data.store import StoreWriter, TokenStore
from insight.data.store.executors import Executor
from insight.data.task_groups import group_ranges
from insight.data.tokenizers import BaseTokenizer
from insight.runtime.errors import DataError

_PARTS = "parts"
_COPIED_IDS = 1 << 19
# Text is this many times its compressed form, roughly.
_EXPANSION = 4


@dataclass(frozen=True)
class Division:
    """How documents are divided into a training and a validation part, and which of them is encoded.

    Attributes:
        array: For each document whether it is for validation (bool), or where its validation part begins
            (int64, in characters).
        is_validation: Whether the validation part is encoded.
    """

    array: npt.NDArray[Any]
    is_validation: bool


def text_bytes(ranges: Sequence[TextRange]) -> int:
    """About how much text there is, compressed files counted as what they hold."""
    return sum(
        each.num_bytes * (_EXPANSION if each.source.compression or each.source.format == "parquet" else 1)
        for each in ranges
    )


def encode_in_tasks(
    executor: Executor,
    text: RangedText,
    contents: Mapping[Path, str],
    tokenizer: BaseTokenizer,
    writer: StoreWriter,
    folder: Path,
    title: str,
    repairs: TextRepairs,
    division: Division | None = None,
    task_bytes: int | None = None,
) -> None:
    """Encode ``text`` and append it to ``writer``: the same bytes whatever the executor and the tasks.

    Args:
        executor: Runs the tasks.
        text: What to encode.
        contents: Content hash of each file.
        tokenizer: Makes the ids.
        writer: Gets them in the order of the text.
        folder: Where tasks leave their results meanwhile; every worker sees it under this path.
        title: What messages call the text.
        repairs: Counts what was repaired.
        division: Which part of the documents to encode; ``None`` for all of them.
        task_bytes: About how much a task takes; what keeps every worker busy to the end if not given.

    Raises:
        DataError: A file cannot be read or holds no text, workers died again and again, or the result of a
            task is missing or damaged.
    """
    parts = folder.absolute() / _PARTS
    parts.mkdir()
    try:
        tasks = _tasks(executor, text, contents, tokenizer, parts, division, task_bytes)
        progress = EncodingProgress(title, sum(task.num_bytes for task in tasks))
        is_empty: dict[str, bool] = {}
        # Closed here when something fails, so that no task is begun any more.
        with contextlib.closing(_closable(executor.map(encode_part, tasks))) as keys:
            for task in tasks:
                if next(keys, None) != task.key:
                    raise DataError(f"{task}: the result of its task was lost", "start again")
                origin = _append(task, writer)
                shutil.rmtree(task.output, ignore_errors=True)
                repairs.count(int(origin["repairs"]), str(origin["first_repair"]))
                for text_range, has_text in zip(task.ranges, origin["has_text"], strict=True):
                    name = text_range.source.name
                    is_empty[name] = is_empty.get(name, True) and not has_text
                progress.advance(task.num_bytes)
        for name, has_none in is_empty.items():
            if has_none:
                raise DataError(f"{name}: holds no text", "leave it out or give a file with text")
    finally:
        shutil.rmtree(parts, ignore_errors=True)


def _tasks(
    executor: Executor,
    text: RangedText,
    contents: Mapping[Path, str],
    tokenizer: BaseTokenizer,
    parts: Path,
    division: Division | None,
    task_bytes: int | None,
) -> list[EncodeTask]:
    ranges: Sequence[TextRange] = text.ranges
    starts: Sequence[RangeStart] = text.starts if division else [RangeStart()] * len(ranges)
    if tokenizer.boundaries is None:
        ranges, starts = joined_ranges(ranges, starts)
    tokenizer_file = parts / "tokenizer.json"
    tokenizer.save(tokenizer_file)
    selection = _save(division, parts) if division else None
    return [
        EncodeTask(
            tuple(ranges[first:stop]),
            tuple(contents[each.source.path] for each in ranges[first:stop]),
            tuple(starts[first:stop]),
            text.reading,
            selection,
            tokenizer_file,
            tokenizer.fingerprint(),
            parts,
        )
        for first, stop in group_ranges(executor, ranges, task_bytes)
    ]


def _save(division: Division, parts: Path) -> Selection:
    file = parts / "division.npy"
    np.save(file, division.array)
    content = xxhash.xxh3_128_hexdigest(np.ascontiguousarray(division.array).data)
    return Selection(file, str(content), division.is_validation)


def _append(task: EncodeTask, writer: StoreWriter) -> dict[str, Any]:
    """Append the store that a task has left; what its manifest says about the text.

    Raises:
        DataError: It is missing or damaged.
    """
    try:
        store = TokenStore(task.output, is_use=False)
        if store.manifest.shards:
            ends = store.shard(0)[1][1:].astype(np.int64)
            # In pieces, each used while it is at hand, so that a large part is never in memory as a whole.
            for start, ids in store.checked_ids(0, _COPIED_IDS):
                first, last = np.searchsorted(ends, (start, start + len(ids)), side="right")
                writer.append_finished(ids, ends[first:last] - start, 0)
    except DataError as error:
        raise DataError(f"{task}: the result of its task is gone ({error.problem})", "start again") from error
    origin = store.manifest.origin
    nothing = np.zeros(0, dtype=store.manifest.dtype), np.zeros(0, dtype=np.int64)
    writer.append_finished(*nothing, store.num_bytes, int(origin["num_unknown"]))
    return origin


def _closable(results: Iterator[str]) -> Generator[str, None, None]:
    """``results`` as a generator: closing it closes them."""
    yield from results
