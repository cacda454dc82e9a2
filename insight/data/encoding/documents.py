"""Encode documents into a store, a few megabytes of text at a time, less when memory runs short."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from insight.data.sources.formats import TextPart, as_parts
from insight.data.store.writer import StoreWriter
from insight.data.tokenizers import EncodedBatch
from insight.data.tokenizers.base import utf8_length
from insight.runtime.errors import DataError
from insight.runtime.memory_watcher import MemoryWatcher, process_watcher

# UTF-8 bytes. Encoding a batch takes about forty times as much memory: words, their numbers and 8-byte ids.
_BATCH_BYTES = 1 << 22
# Every document takes some memory, however short it is.
_BATCH_DOCUMENTS = 1 << 14
# A long document is cut into pieces of a batch divided by this number, which can be encoded in parallel.
_PIECES = 40
_MOST_CHARACTER_BYTES = 4


def encode_documents(documents: Iterable[str], writer: StoreWriter, **options: Any) -> None:
    """Call :func:`encode_parts`, with its ``options``, for documents that are in memory."""
    encode_parts(as_parts(documents), writer, **options)


def encode_parts(
    parts: Iterable[TextPart],
    writer: StoreWriter,
    *,
    batch_bytes: int = _BATCH_BYTES,
    watcher: MemoryWatcher | None = None,
) -> None:
    """Encode documents that come in parts, in order, and append them to ``writer``.

    Many short documents are encoded together, one long document in parts if its tokenizer allows it. The
    batches do not affect the ids. A document that does not end with the last part stays open.

    Args:
        parts: Documents in parts.
        writer: Receives the ids that its tokenizer makes.
        batch_bytes: UTF-8 bytes to encode at once; a quarter of it while memory is short.
        watcher: Reports when memory is short; the watcher of this process if not given.
    """
    if batch_bytes < 1:
        raise DataError("nothing could be encoded", "use 1 or more", option="batch_bytes", value=batch_bytes)
    batch: list[str] = []
    size = 0
    stream = iter(parts)
    with (watcher or process_watcher()).watching() as watched:

        def most_bytes() -> int:
            return max(1, int(batch_bytes * watched.work_share))

        for part in stream:
            num_bytes = utf8_length(part.text)
            if not batch:
                most = most_bytes()
            is_long = not part.is_last or num_bytes > most
            if batch and (is_long or size + num_bytes > most or len(batch) >= _BATCH_DOCUMENTS):
                writer.append(writer.tokenizer.encode_batch(batch), size)
                batch, size = [], 0
            if is_long:
                _append_long(itertools.chain((part,), stream), writer, most_bytes)
            else:
                batch.append(part.text)
                size += num_bytes
        if batch:
            writer.append(writer.tokenizer.encode_batch(batch), size)


def _append_long(parts: Iterator[TextPart], writer: StoreWriter, most: Callable[[], int]) -> None:
    """Encode one document; ``most`` returns how many bytes to encode at once, which may change."""
    tokenizer, is_open = writer.tokenizer, True

    def chunks_of_document() -> Iterator[str]:
        nonlocal is_open
        for part in parts:
            yield part.text
            if part.is_last:
                is_open = False
                return

    chunks = chunks_of_document()
    first = next(chunks)
    # The first chunk shows how many bytes a character takes.
    bytes_a_character = utf8_length(first) / len(first) if first else _MOST_CHARACTER_BYTES
    num_characters = max(1, int(most() / bytes_a_character / _PIECES))
    held: list[str] = []
    size = 0

    def write(continues: bool) -> None:
        ids = tokenizer.encode_pieces(held)
        writer.append(EncodedBatch(ids, np.array([0, len(ids)])), size, continues=continues)

    for piece in tokenizer.stream_parts(itertools.chain((first,), chunks), num_characters):
        num_bytes = utf8_length(piece)
        if held and size + num_bytes > most():
            write(continues=True)
            held, size = [], 0
        held.append(piece)
        size += num_bytes
    write(continues=is_open)
