"""From documents to a written store, a few megabytes of text at a time."""

from __future__ import annotations

from collections.abc import Iterable

from insight.data.store.writer import StoreWriter
from insight.data.tokenizers import BaseTokenizer
from insight.data.tokenizers.base import utf8_length

_BATCH_CHARACTERS = 1 << 22
_BATCH_DOCUMENTS = 1 << 14


def encode_documents(documents: Iterable[str], tokenizer: BaseTokenizer, writer: StoreWriter) -> None:
    """Encode ``documents`` in order and append them to ``writer``.

    Raises:
        TokenizerError: A document is no valid text.
    """
    batch: list[str] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document)
        if size >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
            _append(batch, tokenizer, writer)
            batch, size = [], 0
    if batch:
        _append(batch, tokenizer, writer)


def _append(batch: list[str], tokenizer: BaseTokenizer, writer: StoreWriter) -> None:
    writer.append(tokenizer.encode_batch(batch), sum(utf8_length(text) for text in batch))
