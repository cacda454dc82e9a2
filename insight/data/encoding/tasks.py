"""Measure and encode text in tasks that any executor can run, and join their results in its order."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from insight.data.encoding.documents import encode_parts
from insight.data.encoding.executors import Executor
from insight.data.sources.decoding import Reading, TextRepairs
from insight.data.sources.formats import Source, TextPart, require_text, without_empty
from insight.data.sources.ranges import RangedText, RangeStart, TextRange, joined_ranges
from insight.data.split import SIZES, select_parts, sizes_of
from insight.data.store import StoreWriter, TokenStore
from insight.data.store.format import FORMAT_VERSION, json_hash
from insight.data.tokenizers import BaseTokenizer, load_tokenizer
from insight.runtime.errors import DataError, TokenizerError
from insight.runtime.messages import say

# With this many tasks per worker, all workers end at about the same time and starting tasks costs little.
_TASKS_A_WORKER = 16
_LEAST_TASK_BYTES, _MOST_TASK_BYTES = 1 << 22, 1 << 26
_MOST_RANGES = 1000


def group_ranges(executor: Executor, ranges: Sequence[TextRange]) -> Iterator[slice]:
    """Yield the places of the ranges of each task: neighbours, and enough tasks to keep every worker busy."""
    share = sum(each.num_bytes for each in ranges) // (_TASKS_A_WORKER * executor.num_workers)
    task_bytes = min(_MOST_TASK_BYTES, max(_LEAST_TASK_BYTES, share))
    first = size = 0
    for index, text_range in enumerate(ranges, start=1):
        size += text_range.num_bytes
        if size >= task_bytes or index - first >= _MOST_RANGES or index == len(ranges):
            yield slice(first, index)
            first, size = index, 0


@dataclass(frozen=True)
class SizeTask:
    """Ranges whose documents are measured, in order; a task holds paths and no text."""

    ranges: tuple[TextRange, ...]
    reading: Reading

    def __str__(self) -> str:
        return f"{self.ranges[0]}"


class RangeSizes(NamedTuple):
    """Sizes of the documents, or parts of documents, in one range; the last one may continue in the next."""

    sizes: npt.NDArray[np.void]
    is_open: bool


def measure_documents(executor: Executor, text: RangedText) -> npt.NDArray[np.void]:
    """The sizes of all documents, sixteen bytes each; sets ``text.starts`` as well."""
    tasks = [SizeTask(tuple(text.ranges[each]), text.reading) for each in group_ranges(executor, text.ranges)]
    documents: list[npt.NDArray[np.void]] = [np.zeros(0, dtype=SIZES)]
    starts: list[RangeStart] = []
    count, begun = 0, (0, 0)  # Finished documents; bytes and characters of the open one.
    source, has_text = None, True
    # After an error, closing ensures that no further task begins.
    with contextlib.closing(executor.map(measure_part, tasks)) as results:
        measured = itertools.chain.from_iterable(results)
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
    text.starts = starts
    return np.concatenate(documents)


def measure_part(task: SizeTask) -> list[RangeSizes]:
    """Measure the documents of each range of a task."""
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


# A part is one shard: where the shards of the whole store begin is known only when parts are joined.
_ONE_SHARD = 1 << 62


@dataclass(frozen=True)
class Selection:
    """Which of the two parts of the documents a task encodes.

    Attributes:
        file: A ``.npy`` file that holds the :attr:`ValidationSplit.division`.
        content: Hash of that array.
        is_validation: Whether the validation part is encoded instead of the training part.
    """

    file: Path
    content: str
    is_validation: bool

    @classmethod
    def save(cls, division: npt.NDArray[Any], is_validation: bool, folder: Path) -> Selection:
        """Write the division into a file in ``folder``."""
        file = folder / "division.npy"
        np.save(file, division)
        content = xxhash.xxh3_128_hexdigest(np.ascontiguousarray(division).data)
        return cls(file, str(content), is_validation)


@dataclass(frozen=True)
class EncodeTask:
    """One piece of work for a worker; a task holds paths and hashes but no text.

    Attributes:
        ranges: The ranges of text to encode, in order.
        contents: Content hash of the file of each range.
        starts: Where each range begins among the documents; used only with ``selection``.
        reading: How bytes become documents.
        selection: Which part of the documents is encoded; ``None`` for all.
        tokenizer_file: The ``tokenizer.json`` to use.
        tokenizer_fingerprint: The fingerprint that the tokenizer must have.
        folder: Where the result is written, under the task's :attr:`key`.
    """

    ranges: tuple[TextRange, ...]
    contents: tuple[str, ...]
    starts: tuple[RangeStart, ...]
    reading: Reading
    selection: Selection | None
    tokenizer_file: Path
    tokenizer_fingerprint: str
    folder: Path

    @functools.cached_property
    def key(self) -> str:
        """A hash of everything that decides the result; file names do not count."""
        spans = [each.byte_range and (each.byte_range.start, each.byte_range.stop) for each in self.ranges]
        chosen = self.selection and [self.selection.content, self.selection.is_validation]
        return json_hash(
            {
                "format_version": FORMAT_VERSION,
                "sources": self.contents,
                "ranges": spans,
                "open": [each.is_open for each in self.ranges],
                "reading": [self.reading.text_field, self.reading.invalid_text],
                "selection": chosen,
                "starts": [[start.document, start.character] for start in self.starts] if chosen else None,
                "tokenizer": self.tokenizer_fingerprint,
            }
        )

    @property
    def output(self) -> Path:
        """Folder of the result."""
        return self.folder / self.key

    @property
    def num_bytes(self) -> int:
        """Number of bytes that the task reads from files."""
        return sum(each.num_bytes for each in self.ranges)

    def __str__(self) -> str:
        others = f" and {len(self.ranges) - 1} more" if len(self.ranges) > 1 else ""
        return f"{self.ranges[0]}{others}"


def encode_part(task: EncodeTask) -> str:
    """Encode the text of a task into a store at :attr:`EncodeTask.output`, and return the key of the task.

    A second run changes nothing: the store is written under another name and renamed, so that it appears
    complete. If two workers do the same task at once, the first one publishes, the other discards its result.

    Raises:
        DataError: A file cannot be read, or this machine does not see the files of the task.
        TokenizerError: The tokenizer differs, or a document is not valid text.
    """
    if task.output.is_dir():
        return task.key
    if not task.folder.is_dir():
        remedy = "workers need the text and the cache under the same paths: use a shared file system"
        raise DataError(f"{task.folder}: {socket.gethostname()} does not see this folder", remedy)
    tokenizer = _tokenizer(task.tokenizer_file, task.tokenizer_fingerprint)
    temporary = Path(tempfile.mkdtemp(prefix=f".{task.key}.", suffix=".tmp", dir=task.folder))
    repairs = TextRepairs()
    has_text: list[bool] = []
    writer = StoreWriter(temporary, tokenizer, _ONE_SHARD, is_kept=False)
    try:
        encode_parts(_parts_of(task, repairs, has_text), writer)
        found = {"has_text": has_text, "num_unknown": writer.num_unknown}
        writer.close({**found, "repairs": repairs.num_places, "first_repair": repairs.first})
        os.chmod(temporary, 0o755)
        with contextlib.suppress(OSError):  # Another worker was faster with the same result.
            os.replace(temporary, task.output)
        if not task.output.is_dir():
            raise DataError(f"{task.output}: cannot be published", "is something clearing the cache?")
    finally:
        writer.abandon()
        shutil.rmtree(temporary, ignore_errors=True)
    return task.key


def _parts_of(task: EncodeTask, repairs: TextRepairs, has_text: list[bool]) -> Iterator[TextPart]:
    """Read the text of a task; ``has_text`` receives for each range whether it holds any, in either part."""
    chosen = task.selection
    array = np.load(chosen.file, mmap_mode="r") if chosen else None
    for text_range, start in zip(task.ranges, task.starts, strict=True):
        has_text.append(False)
        parts, goes_on = _noted(text_range.parts(task.reading, repairs), has_text), text_range.begins_inside
        if array is not None and chosen is not None:
            whole = without_empty(parts, start.character > 0)
            parts = select_parts(whole, array, chosen.is_validation, start.document, start.character)
            goes_on = start.character > 0 and _was_begun(chosen, array, start)
        yield from without_empty(parts, goes_on)


def _was_begun(selection: Selection, array: Any, start: RangeStart) -> bool:
    """Whether some of the selected text of the document at ``start`` lies before that place."""
    value = array[start.document]
    if array.dtype == np.bool_:
        return bool(value) is selection.is_validation
    return not selection.is_validation or start.character > int(value)


def _noted(parts: Iterator[TextPart], has_text: list[bool]) -> Iterator[TextPart]:
    for part in parts:
        has_text[-1] = has_text[-1] or bool(part.text)
        yield part


@functools.lru_cache(maxsize=2)
def _tokenizer(file: Path, fingerprint: str) -> BaseTokenizer:
    tokenizer = load_tokenizer(file)
    if tokenizer.fingerprint() != fingerprint:
        problem = f"{file}: is another tokenizer on {socket.gethostname()}"
        raise TokenizerError(problem, "use one version of it")
    return tokenizer


class EncodingProgress:
    """Counts bytes and prints a line every ``interval`` seconds, so that a short encoding prints none.

    ``total_bytes`` is ``None`` if unknown, as for compressed files; ``clock`` returns monotonic seconds;
    ``work`` names the activity in the line.
    """

    def __init__(
        self,
        title: str,
        total_bytes: int | None = None,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        work: str = "encoding",
    ) -> None:
        self._title = f"{work} {title}"
        self._total = total_bytes
        self._interval = interval
        self._clock = clock
        self._started = self._last = clock()
        self._done = 0

    def advance(self, num_bytes: int) -> None:
        """Count bytes that have been encoded."""
        self._done += num_bytes
        now = self._clock()
        if now - self._last < self._interval:
            return
        self._last = now
        rate = self._done / 1e6 / max(now - self._started, 1e-9)
        size = f"{self._done / 1e6:,.0f} MB of text"
        if self._total:
            size = f"{min(1.0, self._done / self._total):.0%} of {self._total / 1e6:,.0f} MB"
        say(f"{self._title}: {size}, {rate:.0f} MB/s")

    def watch(self, parts: Iterable[TextPart]) -> Iterator[TextPart]:
        """Yield ``parts``, and count each one when the next is requested."""
        for part in parts:
            yield part
            # The number of characters is close to that of bytes, which would need a second pass.
            self.advance(len(part.text))


_PARTS = "parts"
_COPIED_IDS = 1 << 19


def encode_in_tasks(
    executor: Executor,
    text: RangedText,
    contents: Mapping[Path, str],
    writer: StoreWriter,
    folder: Path,
    title: str,
    repairs: TextRepairs,
    division: npt.NDArray[Any] | None = None,
    is_validation: bool = False,
) -> None:
    """Encode ``text`` and append it to ``writer``; the result does not depend on executor or tasks.

    Args:
        executor: Runs the tasks.
        text: The text to encode.
        contents: Content hash of each file.
        writer: Receives the ids, in the order of the text, that its tokenizer makes.
        folder: Where tasks leave their results; every worker must see it under this path.
        title: Name of the text in messages.
        repairs: Counts the repairs of the text.
        division: The :attr:`ValidationSplit.division` of the documents, if only a part of them is encoded.
        is_validation: Whether that is the validation part instead of the training part.

    Raises:
        DataError: A file has no text, workers died repeatedly, or the result of a task is missing or damaged.
    """
    tokenizer = writer.tokenizer
    ranges: Sequence[TextRange] = text.ranges
    starts: Sequence[RangeStart] = [RangeStart()] * len(ranges) if division is None else text.starts
    if tokenizer.boundaries is None:
        ranges, starts = joined_ranges(ranges, starts)
    parts = folder.absolute() / _PARTS
    parts.mkdir()
    try:
        tokenizer_file = parts / "tokenizer.json"
        tokenizer.save(tokenizer_file)
        selection = None if division is None else Selection.save(division, is_validation, parts)
        tasks = [
            EncodeTask(
                tuple(ranges[each]),
                tuple(contents[text_range.source.path] for text_range in ranges[each]),
                tuple(starts[each]),
                text.reading,
                selection,
                tokenizer_file,
                tokenizer.fingerprint(),
                parts,
            )
            for each in group_ranges(executor, ranges)
        ]
        progress = EncodingProgress(title, sum(task.num_bytes for task in tasks))
        filled: dict[Source, bool] = {}
        # After an error, closing ensures that no further task begins.
        with contextlib.closing(executor.map(encode_part, tasks)) as keys:
            for task in tasks:
                if next(keys, None) != task.key:
                    raise DataError(f"{task}: the result of its task was lost", "start again")
                origin = _append(task, writer)
                shutil.rmtree(task.output, ignore_errors=True)
                repairs.count(int(origin["repairs"]), str(origin["first_repair"]))
                for text_range, has_text in zip(task.ranges, origin["has_text"], strict=True):
                    filled[text_range.source] = filled.get(text_range.source, False) or has_text
                progress.advance(task.num_bytes)
        for source, has_text in filled.items():
            require_text(source, has_text)
    finally:
        shutil.rmtree(parts, ignore_errors=True)


def _append(task: EncodeTask, writer: StoreWriter) -> dict[str, Any]:
    """Append the store of a task and return the ``origin`` of its manifest."""
    try:
        store = TokenStore(task.output, is_use=False)
        if store.manifest.shards:
            ends = store.shard(0)[1][1:].astype(np.int64)
            # The ids are read in pieces, so that a large part is never in memory as a whole.
            for start, ids in store.checked_ids(0, _COPIED_IDS):
                first, last = np.searchsorted(ends, (start, start + len(ids)), side="right")
                writer.append_finished(ids, ends[first:last] - start, 0)
    except DataError as error:
        raise DataError(f"{task}: the result of its task is gone ({error.problem})", "start again") from error
    origin = store.manifest.origin
    nothing = np.zeros(0, dtype=store.manifest.dtype), np.zeros(0, dtype=np.int64)
    writer.append_finished(*nothing, store.num_bytes, int(origin["num_unknown"]))
    return origin
