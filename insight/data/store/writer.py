"""Write a token store into a folder, shard by shard; nothing is valid until the manifest is there."""

from __future__ import annotations

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
    token_dtype,
)
from insight.data.tokenizers import BaseTokenizer, EncodedBatch

_SHARD_TOKENS = 1 << 28


class StoreWriter:
    """Appends encoded documents to a folder.

    Args:
        folder: An empty folder that nobody else reads yet.
        tokenizer: The tokenizer that makes the ids.
        shard_tokens: A shard is closed after the document that takes it to this many ids.

    Attributes:
        num_unknown: Ids written so far that stand for what the vocabulary lacks.
    """

    def __init__(self, folder: Path, tokenizer: BaseTokenizer, shard_tokens: int = _SHARD_TOKENS) -> None:
        self._folder = folder
        self._vocabulary_size = tokenizer.vocabulary_size
        self._end_of_text_id = tokenizer.end_of_text_id
        self._unknown_id = tokenizer.unknown_id
        self._fingerprint = tokenizer.fingerprint()
        self._dtype = token_dtype(tokenizer.vocabulary_size)
        self._shard_tokens = shard_tokens
        self._shards: list[Shard] = []
        self._num_bytes = 0
        self.num_unknown = 0
        self._file: IO[bytes] | None = None
        self._hasher = xxhash.xxh3_128()
        self._ends: list[npt.NDArray[np.int64]] = []
        self._shard_length = 0

    @property
    def num_tokens(self) -> int:
        """Ids written so far, end-of-text ids included."""
        return sum(shard.num_tokens for shard in self._shards) + self._shard_length

    def append(self, batch: EncodedBatch, num_bytes: int, *, continues: bool = False) -> None:
        """Write documents, an end-of-text id after each.

        Args:
            batch: Their ids, without end-of-text ids.
            num_bytes: Their length in UTF-8.
            continues: Whether the last document goes on in the next batch, and gets its end there.
        """
        finished = batch.offsets[1:-1] if continues else batch.offsets[1:]
        ids = np.insert(batch.ids, finished, self._end_of_text_id)
        ends = finished + np.arange(1, len(finished) + 1)
        if self._unknown_id is not None:
            self.num_unknown += int(np.count_nonzero(batch.ids == self._unknown_id))
        start = 0
        while start < len(ids):
            first = int(np.searchsorted(ends, start, side="right"))
            if first == len(ends):  # only the document that goes on is left
                self._write(ids[start:], ends[:0], is_whole=False)
                break
            # Up to and with the document that fills the shard.
            room = self._shard_tokens - self._shard_length
            filling = max(first, int(np.searchsorted(ends, start + room)))
            document = min(filling, len(ends) - 1)
            stop = int(ends[document])
            self._write(ids[start:stop], ends[first : document + 1] - start, is_whole=True)
            start = stop
        self._num_bytes += num_bytes

    def close(self, origin: Mapping[str, Any]) -> Manifest:
        """Finish the last shard, then write the manifest.

        Args:
            origin: Where the text came from, plain JSON values.
        """
        self._close_shard()
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
        """Let go of the open file; the folder is left for its owner to remove."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, ids: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], is_whole: bool) -> None:
        if self._file is None:
            self._file = open(self._folder / f"{len(self._shards):05d}.bin", "wb")  # noqa: SIM115
            self._hasher = xxhash.xxh3_128()
            self._ends = [np.zeros(1, dtype=np.int64)]
            self._shard_length = 0
        data = array_bytes(ids, self._dtype)
        self._file.write(data)
        self._hasher.update(data)
        self._ends.append(ends + self._shard_length)
        self._shard_length += len(ids)
        if is_whole and self._shard_length >= self._shard_tokens:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._file is None:
            return
        self.abandon()
        name = f"{len(self._shards):05d}"
        offsets = np.concatenate(self._ends)
        data = array_bytes(offsets, OFFSET_DTYPE)
        (self._folder / f"{name}.idx").write_bytes(data)
        self._shards.append(
            Shard(
                name,
                self._shard_length,
                len(offsets) - 1,
                str(self._hasher.hexdigest()),
                str(xxhash.xxh3_128_hexdigest(data)),
            )
        )
        self._shard_length = 0
