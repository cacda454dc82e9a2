"""One task of encoding: ranges of text in, a small token store out, published under a name of its content."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from insight.data.sources.decoding import Reading, TextRepairs
from insight.data.sources.formats import TextPart, without_empty
from insight.data.sources.ranges import RangeStart, TextRange
from insight.data.store.encode import encode_parts
from insight.data.store.format import FORMAT_VERSION
from insight.data.store.writer import StoreWriter
from insight.data.tokenizers import BaseTokenizer, load_tokenizer
from insight.data.validation_split import select_parts
from insight.runtime.errors import DataError, TokenizerError

# A part is one shard: where the shards of the whole begin is known only when it is put together.
_ONE_SHARD = 1 << 62


@dataclass(frozen=True)
class Selection:
    """Which of two parts of the documents is encoded.

    Attributes:
        file: A ``.npy`` file: for each document whether it is for validation (bool), or where its validation
            part begins (int64, in characters).
        content: Hash of that file's array.
        is_validation: Whether the validation part is encoded, or the training part.
    """

    file: Path
    content: str
    is_validation: bool


@dataclass(frozen=True)
class EncodeTask:
    """What a worker needs to know; it holds paths and hashes, and no text.

    Attributes:
        ranges: What is encoded, in order.
        contents: Content hash of the file of each range.
        starts: Where each of them begins; used with ``selection`` only.
        reading: How bytes become documents.
        selection: Which part of the documents is encoded; ``None`` for all.
        tokenizer_file: Its ``tokenizer.json``.
        tokenizer_fingerprint: What that must be.
        folder: Where the result goes, under the task's :attr:`key`.
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
        """A hash of everything that decides the result; names and places of files play no part."""
        spans = [
            (text_range.byte_range.start, text_range.byte_range.stop) if text_range.byte_range else None
            for text_range in self.ranges
        ]
        chosen = self.selection and [self.selection.content, self.selection.is_validation]
        content = {
            "format_version": FORMAT_VERSION,
            "sources": self.contents,
            "ranges": spans,
            "open": [text_range.is_open for text_range in self.ranges],
            "reading": [self.reading.text_field, self.reading.invalid_text],
            "selection": chosen,
            "starts": [[start.document, start.character] for start in self.starts] if chosen else None,
            "tokenizer": self.tokenizer_fingerprint,
        }
        return str(xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode("utf-8")))

    @property
    def output(self) -> Path:
        """The folder of the result."""
        return self.folder / self.key

    @property
    def num_bytes(self) -> int:
        """Bytes of files that it reads."""
        return sum(text_range.num_bytes for text_range in self.ranges)

    def __str__(self) -> str:
        others = len(self.ranges) - 1
        return f"{self.ranges[0]}" + (f" and {others} more" if others else "")


def encode_part(task: EncodeTask) -> str:
    """Encode the text of a task into a store at :attr:`EncodeTask.output`; run again it leaves the same.

    It is written under another name and renamed, so nobody ever sees half of it. Of two workers that do the
    same task at once the first one publishes, and the other throws its own away.

    Returns:
        The key of the task, by which the result is found.

    Raises:
        DataError: A file cannot be read, or this machine does not see the files of the task.
        TokenizerError: The tokenizer is another one, or a document is no valid text.
        OSError: The result cannot be written.
    """
    if task.output.is_dir():
        return task.key
    if not task.folder.is_dir():
        raise DataError(
            f"{task.folder}: {socket.gethostname()} does not see this folder",
            "workers need the text and the cache under the same paths: use a shared file system",
        )
    tokenizer = _tokenizer(task.tokenizer_file, task.tokenizer_fingerprint)
    temporary = Path(tempfile.mkdtemp(prefix=f".{task.key}.", suffix=".tmp", dir=task.folder))
    try:
        _write(task, tokenizer, temporary)
        os.chmod(temporary, 0o755)
        with contextlib.suppress(OSError):  # another worker was faster with the same
            os.replace(temporary, task.output)
        if not task.output.is_dir():
            raise DataError(f"{task.output}: cannot be published", "is something clearing the cache?")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return task.key


def read_ranges(
    task: EncodeTask, repairs: TextRepairs, has_text: list[bool] | None = None
) -> Iterator[TextPart]:
    """The text of a task.

    Args:
        task: It.
        repairs: Counts what was repaired.
        has_text: Gets for each range whether there was text in it, in whichever part of the documents.
    """
    array = np.load(task.selection.file, mmap_mode="r") if task.selection else None
    for text_range, start in zip(task.ranges, task.starts, strict=True):
        seen = [False]
        parts = _noted(text_range.parts(task.reading, repairs), seen)
        if array is not None and task.selection is not None:
            whole = without_empty(parts, start.character > 0)
            parts = select_parts(whole, array, task.selection.is_validation, start.document, start.character)
            goes_on = start.character > 0 and _was_begun(task.selection, array, start)
        else:
            goes_on = text_range.begins_inside
        yield from without_empty(parts, goes_on)
        if has_text is not None:
            has_text.append(seen[0])


def _was_begun(selection: Selection, array: Any, start: RangeStart) -> bool:
    """Whether some text of the document at ``start``, as selected, lies before it."""
    value = array[start.document]
    if array.dtype == np.bool_:
        return bool(value) is selection.is_validation
    return not selection.is_validation or start.character > int(value)


def _noted(parts: Iterator[TextPart], seen: list[bool]) -> Iterator[TextPart]:
    for part in parts:
        seen[0] = seen[0] or bool(part.text)
        yield part


def _write(task: EncodeTask, tokenizer: BaseTokenizer, folder: Path) -> None:
    repairs = TextRepairs()
    has_text: list[bool] = []
    writer = StoreWriter(folder, tokenizer, _ONE_SHARD, is_kept=False)
    try:
        encode_parts(read_ranges(task, repairs, has_text), tokenizer, writer)
        writer.close(
            {
                "has_text": has_text,
                "num_unknown": writer.num_unknown,
                "repairs": repairs.num_places,
                "first_repair": repairs.first,
            }
        )
    finally:
        writer.abandon()


@functools.lru_cache(maxsize=2)
def _tokenizer(file: Path, fingerprint: str) -> BaseTokenizer:
    tokenizer = load_tokenizer(file)
    if tokenizer.fingerprint() != fingerprint:
        raise TokenizerError(
            f"{file}: is another tokenizer on {socket.gethostname()}", "use one version of it"
        )
    return tokenizer
