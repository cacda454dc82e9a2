"""Write a token store shard by shard; the store is valid only once the manifest is written."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
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
    shard_name,
    token_dtype,
)
from insight.data.tokenizers import BaseTokenizer, EncodedBatch
from insight.runtime.errors import DataError

_FLUSHED_BYTES = 1 << 25
_SHARD_TOKENS = 1 << 28
_synchronize = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync.


class EarlyFlush:
    """Flushes a growing file to the disk in a thread, so that little remains to flush at publication.

    The system reports a failed write to one flush only, so the error is kept and raised later. Only one
    thread may write the file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._num_bytes = 0
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def wrote(self, num_bytes: int) -> None:
        """Count written bytes; start a flush if they are many and no flush is running.

        Raises:
            OSError: An earlier flush has failed.
        """
        self._num_bytes += num_bytes
        if self._num_bytes < _FLUSHED_BYTES or (self._thread and self._thread.is_alive()):
            return
        self.finish()
        self._num_bytes = 0
        self._file.flush()
        self._thread = threading.Thread(target=self._flush, name="early-flush", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait for a running flush; the file may be closed only afterwards.

        Raises:
            OSError: A flush has failed.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def _flush(self) -> None:
        try:
            _synchronize(self._file.fileno())
        except OSError as error:
            self._error = error


class StoreWriter:
    """Appends encoded documents to a folder; only the documents of one call are in memory.

    Args:
        folder: An empty folder that no other process reads yet.
        tokenizer: The tokenizer that makes the ids.
        shard_tokens: A shard is closed after the document that brings it to this many ids.
        is_kept: Whether the store will stay; its bytes are then flushed to the disk early.

    Attributes:
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
            raise DataError(
                "a shard holds tokens", "use 1 or more", option="shard_tokens", value=shard_tokens
            )
        self._folder = folder
        self._vocabulary_size = tokenizer.vocabulary_size
        self._end_of_text_id = tokenizer.end_of_text_id
        self._unknown_id = tokenizer.unknown_id
        self._fingerprint = tokenizer.fingerprint()
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
            batch: Ids of the documents, without end-of-text ids.
            num_bytes: Length of the documents in UTF-8 bytes.
            continues: Whether the last document continues in the next batch.

        Raises:
            DataError: The offsets do not fit, an id is outside the vocabulary, or the store is closed.
        """
        self._check(batch)
        finished = batch.offsets[1:-1] if continues else batch.offsets[1:]
        ends = finished + np.arange(1, len(finished) + 1)
        ids = np.full(len(batch.ids) + len(finished), self._end_of_text_id, dtype=self._dtype)
        is_text = np.ones(len(ids), dtype=np.bool_)
        is_text[ends - 1] = False
        ids[is_text] = batch.ids
        self.append_finished(ids, ends, num_bytes, self._count_unknown(batch.ids))

    def append_stretch(self, ids: npt.NDArray[Any], num_bytes: int, *, is_last: bool = False) -> None:
        """Write a part of one document.

        Args:
            ids: Ids of any integer type, without end-of-text ids.
            num_bytes: Length of their text in UTF-8 bytes.
            is_last: Whether the document ends with this part.

        Raises:
            DataError: An id is outside the vocabulary, or the store is closed.
        """
        self._check_range(ids)
        nothing = np.zeros(0, np.int64)
        self.append_finished(ids.astype(self._dtype), nothing, num_bytes, self._count_unknown(ids))
        if is_last:
            self.append_finished(np.array([self._end_of_text_id], self._dtype), np.ones(1, np.int64), 0)

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

        Raises:
            DataError: The ids have another type, or the store is closed.
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
        manifest = Manifest(
            self._vocabulary_size,
            self._end_of_text_id,
            self._fingerprint,
            self._num_bytes,
            tuple(self._shards),
            dict(origin),
        )
        (self._folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        return manifest

    def abandon(self) -> None:
        """Close the open files; the caller removes the folder."""
        self._is_closed = True
        if self._open is not None:
            self._open.abandon()
            self._open = None

    def _write(self, ids: npt.NDArray[Any], ends: npt.NDArray[np.int64]) -> None:
        if self._open is None:
            self._open = _OpenShard(self._folder, shard_name(len(self._shards)), self._is_kept)
        self._open.write(array_bytes(ids, self._dtype), len(ids), ends)

    def _close_shard(self) -> None:
        if self._open is not None:
            self._shards.append(self._open.close())
            self._open = None

    def _count_unknown(self, ids: npt.NDArray[Any]) -> int:
        return 0 if self._unknown_id is None else int(np.count_nonzero(ids == self._unknown_id))

    def _check(self, batch: EncodedBatch) -> None:
        ids, offsets = batch
        is_whole = len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == len(ids)
        if not is_whole or (np.diff(offsets) < 0).any():
            raise DataError(
                f"{self._folder}: the offsets of a batch do not divide its {len(ids)} ids",
                "they must rise from 0 to the number of ids",
            )
        self._check_range(ids)

    def _check_range(self, ids: npt.NDArray[Any]) -> None:
        if len(ids) and not (ids.max() < self._vocabulary_size and (ids.dtype.kind == "u" or ids.min() >= 0)):
            raise DataError(
                f"{self._folder}: an id is outside 0..{self._vocabulary_size - 1}",
                "were the ids made by another tokenizer?",
            )


class _OpenShard:
    """One ``.bin`` and ``.idx`` file while they are written."""

    def __init__(self, folder: Path, name: str, is_kept: bool) -> None:
        self._name = name
        self._tokens: IO[bytes] = open(folder / f"{name}.bin", "wb")  # noqa: SIM115 (closed in close)
        self._offsets: IO[bytes] = open(folder / f"{name}.idx", "wb")  # noqa: SIM115
        self._tokens_hash = xxhash.xxh3_128()
        self._offsets_hash = xxhash.xxh3_128()
        self._flush = EarlyFlush(self._tokens) if is_kept else None
        self._num_documents = -1
        self.num_tokens = 0
        self._write_offsets(np.zeros(1, dtype=np.int64))

    def write(self, data: memoryview, num_tokens: int, ends: npt.NDArray[np.int64]) -> None:
        self._tokens.write(data)
        self._tokens_hash.update(data)
        if self._flush is not None:
            self._flush.wrote(len(data))
        self._write_offsets(ends + self.num_tokens)
        self.num_tokens += num_tokens

    def close(self) -> Shard:
        if self._flush is not None:
            self._flush.finish()
        self._tokens.close()
        self._offsets.close()
        return Shard(
            self._name,
            self.num_tokens,
            self._num_documents,
            str(self._tokens_hash.hexdigest()),
            str(self._offsets_hash.hexdigest()),
        )

    def abandon(self) -> None:
        if self._flush is not None:
            with contextlib.suppress(OSError):
                self._flush.finish()
        for file in (self._tokens, self._offsets):
            with contextlib.suppress(OSError):  # The disk may have been full already.
                file.close()

    def _write_offsets(self, offsets: npt.NDArray[np.int64]) -> None:
        data = array_bytes(offsets, OFFSET_DTYPE)
        self._offsets.write(data)
        self._offsets_hash.update(data)
        self._num_documents += len(offsets)
