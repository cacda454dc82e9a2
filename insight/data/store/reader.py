"""Read a token store: all shards as one memory-mapped stream."""

from __future__ import annotations

import dataclasses
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from insight.data.store.format import OFFSET_DTYPE, Manifest, Shard, array_bytes, read_manifest
from insight.data.store.lease import take_lease
from insight.runtime.errors import DataError


def ragged_range(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The ranges ``starts[i] .. starts[i] + lengths[i] - 1`` one after the other, int64 ``(lengths.sum(),)``.

    Args:
        starts: int64 ``(pieces,)``.
        lengths: int64 ``(pieces,)``, none negative.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - ends + lengths, lengths)


# Mapped pages count as resident memory of the process, and a read of one place maps up to 2 MB around it
# (Linux maps whole folios of its page cache). So the pages are released after this many places; the file
# stays in the page cache, and the next read only maps its page again.
_PLACES_HELD = 32
_SMALL_BYTES = 1 << 25  # Streams up to this size stay mapped.
_READ_BYTES = 1 << 18
_VERIFIED_IDS = 1 << 17


class MappedStream:
    """One-dimensional arrays of one type read as one; pages of memory-mapped ones are released regularly."""

    def __init__(self, arrays: Sequence[npt.NDArray[Any]]) -> None:
        self._arrays = list(arrays)
        lengths = [len(array) for array in self._arrays]
        self._starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])
        self._is_small = sum(array.nbytes for array in self._arrays) <= _SMALL_BYTES
        self._places_held = 0

    def __len__(self) -> int:
        return int(self._starts[-1])

    def start_of(self, part: int) -> int:
        """Position of the first element of an array in the stream."""
        return int(self._starts[part])

    def range(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Elements ``start`` to ``stop`` (excluded), int64; both positions lie inside the stream."""
        out = np.empty(stop - start, dtype=np.int64)
        done = 0
        part = int(np.searchsorted(self._starts, start, side="right")) - 1
        while done < len(out):
            first = start + done - int(self._starts[part])
            found = self._arrays[part][first : first + len(out) - done]
            out[done : done + len(found)] = found
            done += len(found)
            part += 1
        self._give_back(1)
        return out

    def windows(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
        """``length`` elements from each start: int64 ``(len(starts), length)``; all lie inside the stream."""
        out = np.empty((len(starts), length), dtype=np.int64)
        parts = self._parts_of(starts)
        is_inside = starts + length <= self._starts[parts + 1]
        for part, rows in self._groups(np.where(is_inside, parts, -1)):
            # One strided view of all windows of the array, and one gather of the chosen ones.
            view = np.lib.stride_tricks.sliding_window_view(self._arrays[part], length)
            out[rows] = view[starts[rows] - self._starts[part]]
        for row in np.flatnonzero(np.logical_not(is_inside)).tolist():
            out[row] = self.range(int(starts[row]), int(starts[row]) + length)
        return out

    def pieces(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """``lengths[i]`` elements from each ``starts[i]``, one piece after the other: int64, flat."""
        ends = np.cumsum(lengths, dtype=np.int64)
        out = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.int64)
        parts = self._parts_of(starts)
        is_inside = starts + lengths <= self._starts[parts + 1]
        for part, chosen in self._groups(np.where(is_inside, parts, -1)):
            sizes = lengths[chosen]
            places = ragged_range(ends[chosen] - sizes, sizes)
            out[places] = self._arrays[part][ragged_range(starts[chosen] - self._starts[part], sizes)]
        for piece in np.flatnonzero(np.logical_not(is_inside)).tolist():
            start, length = int(starts[piece]), int(lengths[piece])
            out[ends[piece] - length : ends[piece]] = self.range(start, start + length)
        return out

    def _parts_of(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The array that holds each position; the end of the stream belongs to the last array."""
        parts = np.searchsorted(self._starts, positions, side="right") - 1
        return np.minimum(parts, len(self._arrays) - 1)

    def _groups(self, parts: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Yield the index of an array and places to read from it together; a part of -1 is left out."""
        size = max(1, len(parts)) if self._is_small else _PLACES_HELD
        for part in np.unique(parts[parts >= 0]).tolist():
            of_part = np.flatnonzero(parts == part)
            for first in range(0, len(of_part), size):
                group = of_part[first : first + size]
                yield part, group
                self._give_back(len(group))

    def _give_back(self, num_places: int) -> None:
        self._places_held += num_places
        if self._is_small or self._places_held < _PLACES_HELD:
            return
        self._places_held = 0
        for array in self._arrays:
            if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                array.base.madvise(mmap.MADV_DONTNEED)


class TokenStore:
    """The tokens of a published store.

    Opening checks the manifest and all file sizes; :meth:`verify` checks every byte. Pickling keeps the path.

    Args:
        path: The folder of the store.
        is_use: Whether opening is a use, which delays eviction and prevents it while this object lives.

    Raises:
        DataError: The store is missing, damaged or has another format version.
    """

    def __init__(self, path: str | Path, *, is_use: bool = True) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise DataError("names no store", "give the folder of a store", option="path", value=repr(path))
        self.path = Path(path)
        self._lease = take_lease(self.path) if is_use else None
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
        self._stream = MappedStream(self._shards)

    def __reduce__(self) -> tuple[type[TokenStore], tuple[Path]]:
        return (TokenStore, (self.path,))

    @property
    def num_tokens(self) -> int:
        """Number of ids in the stream, end-of-text ids included."""
        return len(self._stream)

    @property
    def num_documents(self) -> int:
        """Number of documents in the stream."""
        return self.manifest.num_documents

    @property
    def num_bytes(self) -> int:
        """Length of all documents in UTF-8 bytes."""
        return self.manifest.num_bytes

    @property
    def end_of_text_id(self) -> int:
        """The id after each document."""
        return self.manifest.end_of_text_id

    def shard(self, index: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The memory-mapped ids of one shard in the store's type, and the start of each document, uint64.

        Raises:
            DataError: The store has no such shard.
        """
        if not 0 <= index < len(self._shards):
            raise DataError(f"shard {index} of {self.path}", f"the store has {len(self._shards)}")
        return self._shards[index], self._shard_offsets[index]

    def tokens(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Ids ``start`` to ``stop`` (excluded) of the stream, int64.

            Raises:
        DataError: The range does not lie inside the stream.
        """
        if not 0 <= start <= stop <= self.num_tokens:
            raise DataError(f"tokens {start}..{stop} of {self.path}", f"the store has {self.num_tokens}")
        return self._stream.range(start, stop)

    def windows(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
        """Windows of the stream: int64 ``(len(starts), length)``.

        Args:
            starts: The first token of each window, integers ``(windows,)``.
            length: Tokens in each window.

        Raises:
            DataError: A window does not lie inside the stream, or ``starts`` is not a list of whole numbers.
        """
        if length < 1:
            raise DataError("a window holds tokens", "use 1 or more", option="length", value=length)
        if starts.ndim != 1 or (len(starts) and starts.dtype.kind not in "iu"):
            raise DataError(
                f"starts of type {starts.dtype} and shape {starts.shape}", "give a list of whole numbers"
            )
        if len(starts) and not (starts.min() >= 0 and starts.max() + length <= self.num_tokens):
            raise DataError(
                f"windows of {length} tokens beyond the end of {self.path}", "use fewer or shorter ones"
            )
        return self._stream.windows(starts, length)

    def pieces(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Pieces of the stream, one after the other: int64 ``(lengths.sum(),)``.

        Args:
            starts: The first token of each piece, int64. A piece at -1 begins with an end-of-text id, as if
                one came before the first document.
            lengths: Tokens in each piece, int64.

        Raises:
            DataError: A piece does not lie inside the stream.
        """
        if not len(starts):
            return np.empty(0, dtype=np.int64)
        ends = starts + lengths
        if starts.min() < -1 or lengths.min() < 0 or ends.max() > self.num_tokens:
            raise DataError(f"pieces beyond the ends of {self.path}", "use fewer or shorter ones")
        before = (starts < 0) & (lengths > 0)
        rest = lengths - before
        found = self._stream.pieces(np.maximum(starts, 0), rest)
        return (
            np.insert(found, (np.cumsum(rest) - rest)[before], self.end_of_text_id) if before.any() else found
        )

    def document_starts(self) -> npt.NDArray[np.int64]:
        """The start of each document in the stream and the end of the last one: int64 ``(documents + 1,)``.

        Tokens after the last end-of-text id of a shard count as a document.
        """
        parts = []
        for index, offsets in enumerate(self._shard_offsets):
            is_open = int(offsets[-1]) < len(self._shards[index])
            starts = offsets if is_open else offsets[:-1]
            parts.append(starts.astype(np.int64) + self._stream.start_of(index))
        return np.concatenate([*parts, np.array([self.num_tokens])])

    def document(self, index: int) -> npt.NDArray[np.int64]:
        """The ids of one document, int64, without its end-of-text id.

            Raises:
        DataError: The store has no such document.
        """
        if not 0 <= index < self.num_documents:
            raise DataError(f"document {index} of {self.path}", f"the store has {self.num_documents}")
        first_documents = np.cumsum([shard.num_documents for shard in self.manifest.shards])
        shard = int(np.searchsorted(first_documents, index, side="right"))
        offsets = self._shard_offsets[shard]
        inside = index - (int(first_documents[shard - 1]) if shard else 0)
        first = self._stream.start_of(shard)
        return self.tokens(first + int(offsets[inside]), first + int(offsets[inside + 1]) - 1)

    def verify(self) -> None:
        """Compare every byte with the hashes in the manifest, and the ids and offsets with its counts.

        Raises:
            DataError: A file is damaged.
        """
        for index in range(len(self._shards)):
            for _ in self.checked_ids(index, _VERIFIED_IDS):
                pass

    def checked_ids(self, index: int, num_ids: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Read the ids of one shard and compare them with the manifest in the same pass.

        Args:
            index: Number of the shard.
            num_ids: Most ids to read at once.

        Yields:
            The position of the ids in the shard, and the ids in the store's type, in an array that is reused.

        Raises:
            DataError: The shard is damaged. The offsets are checked first; the ids are known to be right only
                after the last of them.
        """
        shard, ids = self.manifest.shards[index], np.empty(num_ids, dtype=self.manifest.dtype)
        self._verify_offsets(shard)
        hasher, largest, start = xxhash.xxh3_128(), 0, 0
        memory = array_bytes(ids, ids.dtype)
        # The file is read rather than mapped, so that a failing disk or a truncated file raises an error.
        with open(self.path / f"{shard.name}.bin", "rb") as file:
            while num_bytes := file.readinto(memory):
                piece = ids[: num_bytes // ids.dtype.itemsize]
                hasher.update(memory[:num_bytes])
                largest = max(largest, int(piece.max(initial=0)))
                yield start, piece
                start += len(piece)
        if hasher.hexdigest() != shard.tokens_hash or largest >= self.manifest.vocabulary_size:
            raise DataError(f"{self.path / shard.name}.bin: damaged", "encode the text again")

    def _verify_offsets(self, shard: Shard) -> None:
        path = self.path / f"{shard.name}.idx"
        hasher = xxhash.xxh3_128()
        before = 0
        is_rising = True
        with open(path, "rb") as file:
            while data := file.read(_READ_BYTES):
                hasher.update(data)
                offsets = np.frombuffer(data, dtype=OFFSET_DTYPE, count=len(data) // OFFSET_DTYPE.itemsize)
                is_rising &= int(offsets[0]) >= before and bool((offsets[1:] >= offsets[:-1]).all())
                before = int(offsets[-1])
        if hasher.hexdigest() != shard.offsets_hash or not is_rising or before > shard.num_tokens:
            raise DataError(f"{path}: damaged", "encode the text again")


def _check_size(path: Path, size: int) -> Path:
    try:
        actual = path.lstat().st_size
    except OSError as error:
        raise DataError(f"{path}: missing", "encode the text again") from error
    if path.is_symlink():
        raise DataError(f"{path}: is a link, which no store has", "encode the text again")
    if actual != size:
        raise DataError(f"{path}: {actual} bytes instead of {size}", "encode the text again")
    return path


class JoinedStore(TokenStore):
    """Several stores, encoded by one tokenizer, read as one in their order.

    Raises:
        DataError: Their tokenizers differ.
    """

    def __init__(self, stores: Sequence[TokenStore]) -> None:
        self._stores = tuple(stores)
        first = self._stores[0]
        if len({store.manifest.tokenizer_fingerprint for store in self._stores}) > 1:
            raise DataError(f"{first.path} and others: encoded by several tokenizers", "encode them by one")
        self.path = first.path
        self._lease = None  # The stores hold their own.
        self.manifest = dataclasses.replace(
            first.manifest,
            num_bytes=sum(store.num_bytes for store in self._stores),
            shards=tuple(shard for store in self._stores for shard in store.manifest.shards),
            origin={
                "files": [file for store in self._stores for file in store.manifest.origin.get("files", ())],
                "division": "",
            },
        )
        self._shards = [shard for store in self._stores for shard in store._shards]
        self._shard_offsets = [offsets for store in self._stores for offsets in store._shard_offsets]
        self._stream = MappedStream(self._shards)

    def __reduce__(self) -> tuple[type[TokenStore], tuple[tuple[TokenStore, ...]]]:  # type: ignore[override]
        return (JoinedStore, (self._stores,))

    def verify(self) -> None:
        for store in self._stores:
            store.verify()
