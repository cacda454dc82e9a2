"""Write a token store shard by shard; the store is valid only once the manifest is written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import xxhash

from insight.data.store.format import (
    MANIFEST_NAME,
    OFFSET_DTYPE,
    Manifest,
    Shard,
    array_bytes,
    token_dtype,
)
from insight.data.tokenizers import BaseTokenizer, EncodedBatch
from insight.runtime.errors import DataError

_FLUSHED_BYTES = 1 << 25
_SHARD_TOKENS = 1 << 28
_synchronize = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync.


class StoreWriter:
    """Appends encoded documents to a folder; only the documents of one call are in memory.

    Args:
        folder: An empty folder that no other process reads yet.
        tokenizer: The tokenizer that makes the ids.
        shard_tokens: A shard is closed after the document that brings it to this many ids.
        is_kept: Whether the store will stay; its bytes are then flushed to the disk early.

    Attributes:
        tokenizer: The tokenizer.
        num_unknown: Number of unknown-token ids written so far.

    Raises:
        DataError: ``shard_tokens`` is below 1.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: BaseTokenizer,
        shard_tokens: int = _SHARD_TOKENS,
        *,
        is_kept: bool = True,
    ) -> None:
        if shard_tokens < 1:
            problem = "a shard holds tokens"
            raise DataError(problem, "use 1 or more", option="shard_tokens", value=shard_tokens)
        self._folder = folder
        self.tokenizer = tokenizer
        self._vocabulary_size = tokenizer.vocabulary_size
        self._end_of_text_id = tokenizer.end_of_text_id
        self._unknown_id = tokenizer.unknown_id
        self._dtype = token_dtype(tokenizer.vocabulary_size)
        self._shard_tokens = shard_tokens
        self._is_kept = is_kept
        self._shards: list[Shard] = []
        self._num_bytes = 0
        self.num_unknown = 0
        self._open: _OpenShard | None = None
        self._is_closed = False

    @property
    def num_tokens(self) -> int:
        """Number of ids written so far, end-of-text ids included."""
        return sum(shard.num_tokens for shard in self._shards) + (self._open.num_tokens if self._open else 0)

    def append(self, batch: EncodedBatch, num_bytes: int, *, continues: bool = False) -> None:
        """Write documents and an end-of-text id after each.

        Args:
            batch: Ids of any integer type, without end-of-text ids.
            num_bytes: Length of the documents in UTF-8 bytes.
            continues: Whether the last document continues in the next batch.

        Raises:
            DataError: The offsets do not fit, an id is outside the vocabulary, or the store is closed.
        """
        offsets, num_ids = batch.offsets, len(batch.ids)
        is_whole = len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == num_ids
        if not is_whole or (np.diff(offsets) < 0).any():
            problem = f"{self._folder}: the offsets of a batch do not divide its {num_ids} ids"
            raise DataError(problem, "they must rise from 0 to the number of ids")
        if num_ids and (batch.ids.max() >= self._vocabulary_size or batch.ids.min() < 0):
            problem = f"{self._folder}: an id is outside 0..{self._vocabulary_size - 1}"
            raise DataError(problem, "were the ids made by another tokenizer?")
        finished = offsets[1:-1] if continues else offsets[1:]
        ends = finished + np.arange(1, len(finished) + 1)
        ids = np.full(num_ids + len(finished), self._end_of_text_id, dtype=self._dtype)
        is_text = np.ones(len(ids), dtype=np.bool_)
        is_text[ends - 1] = False
        ids[is_text] = batch.ids
        unknown = 0 if self._unknown_id is None else np.count_nonzero(batch.ids == self._unknown_id)
        self.append_finished(ids, ends, num_bytes, int(unknown))

    def append_finished(
        self, ids: npt.NDArray[Any], ends: npt.NDArray[np.int64], num_bytes: int, num_unknown: int = 0
    ) -> None:
        """Write ids exactly as the store holds them.

        Args:
            ids: Ids in the store's type, with the end-of-text id of each finished document.
            ends: End of each finished document, after its end-of-text id, int64. The ids after the last end
                are the beginning of a document that continues.
            num_bytes: Length of their text in UTF-8 bytes.
            num_unknown: Number of unknown-token ids among them.
        """
        if self._is_closed:
            raise DataError(f"{self._folder}: the store is closed", "write into a new folder")
        if ids.dtype != self._dtype:
            raise DataError(f"{self._folder}: ids of {ids.dtype}, not {self._dtype}", "convert them first")
        start = 0
        while start < len(ids):
            first = int(np.searchsorted(ends, start, side="right"))
            if first == len(ends):  # Only the document that continues is left.
                self._write(ids[start:], ends[:0])
                break
            # The shard takes every document up to and including the one that fills it.
            room = self._shard_tokens - (self._open.num_tokens if self._open else 0)
            filling = max(first, int(np.searchsorted(ends, start + room)))
            document = min(filling, len(ends) - 1)
            stop = int(ends[document])
            self._write(ids[start:stop], ends[first : document + 1] - start)
            if self._open and self._open.num_tokens >= self._shard_tokens:
                self._close_shard()
            start = stop
        self._num_bytes += num_bytes
        self.num_unknown += num_unknown

    def close(self, origin: Mapping[str, Any]) -> Manifest:
        """Finish the last shard, then write the manifest with ``origin``, plain JSON values."""
        self._close_shard()
        self._is_closed = True
        identity = self._vocabulary_size, self._end_of_text_id, self.tokenizer.fingerprint()
        manifest = Manifest(*identity, self._num_bytes, tuple(self._shards), dict(origin))
        (self._folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        return manifest

    def abandon(self) -> None:
        """Close the open files; the caller removes the folder."""
        self._is_closed = True
        if self._open is not None:
            with contextlib.suppress(OSError):  # The disk may have been full already.
                self._open.close()
            self._open = None

    def _write(self, ids: npt.NDArray[Any], ends: npt.NDArray[np.int64]) -> None:
        if self._open is None:
            self._open = _OpenShard(self._folder, f"{len(self._shards):05d}", self._is_kept)
        self._open.write(array_bytes(ids, self._dtype), len(ids), ends)

    def _close_shard(self) -> None:
        if self._open is not None:
            self._shards.append(self._open.close())
            self._open = None


class _OpenShard:
    """One ``.bin`` and ``.idx`` file while they are written.

    The ids go to the disk early, in a thread, so that little remains to flush at publication. The system
    reports a failed write to one flush only, so its error is kept until the shard is written to or closed.
    """

    def __init__(self, folder: Path, name: str, is_kept: bool) -> None:
        self._name = name
        self._files = contextlib.ExitStack()
        self._tokens: IO[bytes] = self._files.enter_context(open(folder / f"{name}.bin", "wb"))  # noqa: SIM115
        self._offsets: IO[bytes] = self._files.enter_context(open(folder / f"{name}.idx", "wb"))  # noqa: SIM115
        # The files may be closed only when no flush is running.
        self._flushes = self._files.enter_context(ThreadPoolExecutor(1)) if is_kept else None
        self._flush: Future[None] | None = None
        self._num_unflushed = 0
        self._tokens_hash, self._offsets_hash = xxhash.xxh3_128(), xxhash.xxh3_128()
        self._num_documents = -1
        self.num_tokens = 0
        self._write_offsets(np.zeros(1, dtype=np.int64))

    def write(self, data: memoryview, num_tokens: int, ends: npt.NDArray[np.int64]) -> None:
        self._tokens.write(data)
        self._tokens_hash.update(data)
        self._num_unflushed += len(data)
        is_idle = self._flush is None or self._flush.done()
        if self._flushes is not None and is_idle and self._num_unflushed >= _FLUSHED_BYTES:
            if self._flush is not None:
                self._flush.result()
            self._tokens.flush()
            self._flush = self._flushes.submit(_synchronize, self._tokens.fileno())
            self._num_unflushed = 0
        self._write_offsets(ends + self.num_tokens)
        self.num_tokens += num_tokens

    def close(self) -> Shard:
        with self._files:
            if self._flush is not None:
                self._flush.result()
        hashes = (str(hasher.hexdigest()) for hasher in (self._tokens_hash, self._offsets_hash))
        return Shard(self._name, self.num_tokens, self._num_documents, *hashes)

    def _write_offsets(self, offsets: npt.NDArray[np.int64]) -> None:
        data = array_bytes(offsets, OFFSET_DTYPE)
        self._offsets.write(data)
        self._offsets_hash.update(data)
        self._num_documents += len(offsets)
