"""Read a token store: all shards as one stream, memory-mapped, checked before the first use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from insight.data.store.format import OFFSET_DTYPE, Manifest, file_hash, read_manifest
from insight.runtime.errors import DataError


class TokenStore:
    """The tokens of a published store.

    Opening checks the manifest and the size of every file; :meth:`verify` checks every byte. Instances
    travel to other processes by path, without their data.

    Args:
        path: The folder of the store.

    Raises:
        DataError: It is missing, damaged or of another format version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest: Manifest = read_manifest(self.path)
        dtype = self.manifest.dtype
        self._shards: list[npt.NDArray[Any]] = []
        self._shard_offsets: list[npt.NDArray[Any]] = []
        for shard in self.manifest.shards:
            tokens = _check_size(self.path / f"{shard.name}.bin", shard.num_tokens * dtype.itemsize)
            offsets = _check_size(
                self.path / f"{shard.name}.idx", (shard.num_documents + 1) * OFFSET_DTYPE.itemsize
            )
            self._shards.append(np.memmap(tokens, dtype=dtype, mode="r"))
            self._shard_offsets.append(np.memmap(offsets, dtype=OFFSET_DTYPE, mode="r"))
        lengths = [shard.num_tokens for shard in self.manifest.shards]
        self._starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])

    def __reduce__(self) -> tuple[type[TokenStore], tuple[Path]]:
        return (TokenStore, (self.path,))

    @property
    def num_tokens(self) -> int:
        """Ids in the stream, end-of-text ids included."""
        return int(self._starts[-1])

    @property
    def num_documents(self) -> int:
        """Documents in the stream."""
        return self.manifest.num_documents

    @property
    def num_bytes(self) -> int:
        """UTF-8 length of all documents."""
        return self.manifest.num_bytes

    @property
    def end_of_text_id(self) -> int:
        """The id after each document."""
        return self.manifest.end_of_text_id

    def tokens(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Ids ``start`` to ``stop`` (excluded) of the stream, int64.

        Raises:
            DataError: The range is not inside the stream.
        """
        if not 0 <= start <= stop <= self.num_tokens:
            raise DataError(f"tokens {start}..{stop} of {self.path}", f"the store has {self.num_tokens}")
        out = np.empty(stop - start, dtype=np.int64)
        done = 0
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while done < len(out):
            first = start + done - int(self._starts[shard])
            part = self._shards[shard][first : first + len(out) - done]
            out[done : done + len(part)] = part
            done += len(part)
            shard += 1
        return out

    def windows(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
        """Windows of the stream: int64 ``(len(starts), length)``.

        Args:
            starts: Where each begins, int64; window ``i`` ends before ``starts[i] + length``.
            length: Tokens in each.

        Raises:
            DataError: A window is not inside the stream.
        """
        if len(starts) and not (starts.min() >= 0 and starts.max() + length <= self.num_tokens):
            raise DataError(
                f"windows of {length} tokens beyond the end of {self.path}", "use fewer or shorter ones"
            )
        if len(self._shards) == 1 and len(starts):
            # One strided view of every window, one gather of the chosen ones.
            view = np.lib.stride_tricks.sliding_window_view(self._shards[0], length)
            return view[starts].astype(np.int64)
        out = np.empty((len(starts), length), dtype=np.int64)
        for row, start in enumerate(starts.tolist()):
            out[row] = self.tokens(start, start + length)
        return out

    def document(self, index: int) -> npt.NDArray[np.int64]:
        """The ids of one document, int64, without its end-of-text id.

        Raises:
            DataError: There is no such document.
        """
        if not 0 <= index < self.num_documents:
            raise DataError(f"document {index} of {self.path}", f"the store has {self.num_documents}")
        first_documents = np.cumsum([shard.num_documents for shard in self.manifest.shards])
        shard = int(np.searchsorted(first_documents, index, side="right"))
        offsets = self._shard_offsets[shard]
        inside = index - (int(first_documents[shard - 1]) if shard else 0)
        first = int(self._starts[shard])
        return self.tokens(first + int(offsets[inside]), first + int(offsets[inside + 1]) - 1)

    def verify(self) -> None:
        """Compare every byte with the hashes in the manifest.

        Raises:
            DataError: A file is damaged.
        """
        for shard in self.manifest.shards:
            for suffix, expected in (("bin", shard.tokens_hash), ("idx", shard.offsets_hash)):
                path = self.path / f"{shard.name}.{suffix}"
                if file_hash(path) != expected:
                    raise DataError(f"{path}: damaged", "encode the text again")


def _check_size(path: Path, size: int) -> Path:
    try:
        actual = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: missing", "encode the text again") from error
    if actual != size:
        raise DataError(f"{path}: {actual} bytes instead of {size}", "encode the text again")
    return path
