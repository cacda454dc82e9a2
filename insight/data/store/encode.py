"""From documents to a written store, a few megabytes of text at a time, fewer when memory runs short."""

from __future__ import annotations

from collections.abc import Iterable

from insight.data.store.writer import StoreWriter
from insight.data.tokenizers import BaseTokenizer
from insight.data.tokenizers.base import utf8_length
from insight.runtime.memory_watcher import MemoryWatcher, process_watcher

# Of UTF-8. Encoding a batch takes some forty times its bytes: the words, their numbers, and ids of 8 bytes.
_BATCH_BYTES = 1 << 22
# A document takes some memory however short it is.
_BATCH_DOCUMENTS = 1 << 14


def encode_documents(
    documents: Iterable[str],
    tokenizer: BaseTokenizer,
    writer: StoreWriter,
    *,
    batch_bytes: int = _BATCH_BYTES,
    watcher: MemoryWatcher | None = None,
) -> None:
    """Encode ``documents`` in order and append them to ``writer``.

    Work is cut by bytes: many short documents are encoded together, one long document in parts where its
    tokenizer allows it. How it is cut changes no id.

    Args:
        documents: Any texts.
        tokenizer: Makes the ids.
        writer: Gets the ids.
        batch_bytes: UTF-8 bytes to encode at once; a quarter of it while memory is short.
        watcher: Says when it is; the one of this process if not given.

    Raises:
        TokenizerError: A document is no valid text.
    """
    batch: list[str] = []
    size = 0
    with (watcher or process_watcher()).watching() as watched:
        for document in documents:
            most = max(1, int(batch_bytes * watched.work_share))
            num_bytes = utf8_length(document)
            if batch and (size + num_bytes > most or len(batch) >= _BATCH_DOCUMENTS):
                writer.append(tokenizer.encode_batch(batch), size)
                batch, size = [], 0
            if num_bytes > most:
                _append_long(document, tokenizer, writer, most)
            else:
                batch.append(document)
                size += num_bytes
        if batch:
            writer.append(tokenizer.encode_batch(batch), size)


def _append_long(document: str, tokenizer: BaseTokenizer, writer: StoreWriter, num_bytes: int) -> None:
    # As many characters as bytes: at most four times the bytes, and no need to count them again.
    parts = iter(tokenizer.text_parts(document, num_bytes))
    part = next(parts)
    for following in parts:
        writer.append(tokenizer.encode_batch([part]), utf8_length(part), continues=True)
        part = following
    writer.append(tokenizer.encode_batch([part]), utf8_length(part))
