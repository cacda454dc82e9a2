"""Read a token store: all shards as one memory-mapped stream, under a lease while it is in use."""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import sys
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from insight.data.store.format import (
    MANIFEST_NAME,
    OFFSET_DTYPE,
    Manifest,
    array_bytes,
    faulty,
    read_manifest,
)
from insight.runtime.errors import DataError


def ragged_range(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The ranges ``starts[i] .. starts[i] + lengths[i] - 1`` one after the other, int64, flat."""
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - ends + lengths, lengths)


# Mapped pages count as resident memory of the process, and a read of one place maps up to 2 MB around it
# (Linux maps whole folios of its page cache). So the pages are released after this many places; the file
# stays in the page cache, and the next read only maps its page again.
_PLACES_HELD = 32
_SMALL_BYTES = 1 << 25  # Streams up to this size stay mapped.
_VERIFIED_IDS = 1 << 17
_VERIFIED_OFFSETS = 1 << 15


class MappedStream:
    """One-dimensional arrays of one type read as one; pages of memory-mapped ones are released regularly."""

    def __init__(self, arrays: Sequence[npt.NDArray[Any]]) -> None:
        self._arrays = list(arrays)
        # Where each array begins in the stream, and where the last one ends.
        self.starts = np.cumsum([0, *map(len, self._arrays)], dtype=np.int64)
        self._is_small = sum(array.nbytes for array in self._arrays) <= _SMALL_BYTES
        self._places_held = 0

    def __len__(self) -> int:
        return int(self.starts[-1])

    def range(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Elements ``start`` to ``stop`` (excluded), int64; both positions lie inside the stream."""
        out = np.empty(stop - start, dtype=np.int64)
        done = 0
        part = int(np.searchsorted(self.starts, start, side="right")) - 1
        while done < len(out):
            first = start + done - int(self.starts[part])
            found = self._arrays[part][first : first + len(out) - done]
            out[done : done + len(found)] = found
            done += len(found)
            part += 1
        self._give_back(1)
        return out

    def windows(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
        """``length`` elements from each start: int64 ``(len(starts), length)``; all lie inside the stream."""
        out = np.empty((len(starts), length), dtype=np.int64)
        parts = self._parts_of(starts, starts + length)
        for part, rows in self._groups(parts):
            # One strided view of all windows of the array, and one gather of the chosen ones.
            view = np.lib.stride_tricks.sliding_window_view(self._arrays[part], length)
            out[rows] = view[starts[rows] - self.starts[part]]
        for row in np.flatnonzero(parts < 0).tolist():
            out[row] = self.range(int(starts[row]), int(starts[row]) + length)
        return out

    def pieces(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """``lengths[i]`` elements from each ``starts[i]``, one piece after the other: int64, flat."""
        ends = np.cumsum(lengths, dtype=np.int64)
        out = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.int64)
        parts = self._parts_of(starts, starts + lengths)
        for part, chosen in self._groups(parts):
            sizes = lengths[chosen]
            places = ragged_range(ends[chosen] - sizes, sizes)
            out[places] = self._arrays[part][ragged_range(starts[chosen] - self.starts[part], sizes)]
        for piece in np.flatnonzero(parts < 0).tolist():
            start, length = int(starts[piece]), int(lengths[piece])
            out[ends[piece] - length : ends[piece]] = self.range(start, start + length)
        return out

    def _parts_of(self, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The array that holds each piece, -1 for several; the end of the stream belongs to the last one."""
        parts = np.searchsorted(self.starts, starts, side="right") - 1
        parts = np.minimum(parts, len(self._arrays) - 1)
        return np.where(stops <= self.starts[parts + 1], parts, -1)

    def _groups(self, parts: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Yield the index of an array and places to read from it together; a part of -1 is left out."""
        size = max(1, len(parts)) if self._is_small else _PLACES_HELD
        for part in sorted({*parts.tolist()} - {-1}):  # np.unique would import numpy.ma first
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
        if is_use:
            take_lease(self, self.path)
        self.manifest: Manifest = read_manifest(self.path)
        self._shards: list[npt.NDArray[Any]] = []
        self._shard_offsets: list[npt.NDArray[Any]] = []
        for shard in self.manifest.shards:
            file = self.path / shard.name
            self._shards.append(_mapped(file.with_suffix(".bin"), self.manifest.dtype, shard.num_tokens))
            offsets = _mapped(file.with_suffix(".idx"), OFFSET_DTYPE, shard.num_documents + 1)
            self._shard_offsets.append(offsets)
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
            problem = f"starts of type {starts.dtype} and shape {starts.shape}"
            raise DataError(problem, "give a list of whole numbers")
        if len(starts) and not (starts.min() >= 0 and starts.max() + length <= self.num_tokens):
            problem = f"windows of {length} tokens beyond the end of {self.path}"
            raise DataError(problem, "use fewer or shorter ones")
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
        if starts.min() < -1 or lengths.min() < 0 or (starts + lengths).max() > self.num_tokens:
            raise DataError(f"pieces beyond the ends of {self.path}", "use fewer or shorter ones")
        before = (starts < 0) & (lengths > 0)
        rest = lengths - before
        found = self._stream.pieces(np.maximum(starts, 0), rest)
        if not before.any():
            return found
        return np.insert(found, (np.cumsum(rest) - rest)[before], self.end_of_text_id)

    def document_starts(self) -> npt.NDArray[np.int64]:
        """The start of each document in the stream and the end of the last one: int64 ``(documents + 1,)``.

        Tokens after the last end-of-text id of a shard count as a document.
        """
        parts = []
        for index, offsets in enumerate(self._shard_offsets):
            is_open = int(offsets[-1]) < len(self._shards[index])
            starts = offsets if is_open else offsets[:-1]
            parts.append(starts.astype(np.int64) + self._stream.starts[index])
        return np.concatenate([*parts, np.array([self.num_tokens])])

    def document(self, index: int) -> npt.NDArray[np.int64]:
        """The ids of one document, int64, without its end-of-text id.

        Raises:
            DataError: The store has no such document.
        """
        if not 0 <= index < self.num_documents:
            raise DataError(f"document {index} of {self.path}", f"the store has {self.num_documents}")
        first_documents = np.cumsum([0, *(shard.num_documents for shard in self.manifest.shards)])
        shard = int(np.searchsorted(first_documents, index, side="right")) - 1
        inside = index - int(first_documents[shard])
        start, end = self._shard_offsets[shard][inside : inside + 2].astype(np.int64)
        first = self._stream.starts[shard]
        return self.tokens(int(first + start), int(first + end) - 1)

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

        Yields the position in the shard of at most ``num_ids`` ids, and these in the store's type, in an
        array that is reused. The ids are known to be right only after the last of them.

        Raises:
            DataError: The shard is damaged.
        """
        shard = self.manifest.shards[index]
        path, before = self.path / f"{shard.name}.idx", 0
        for offsets in _checked(path, shard.offsets_hash, np.empty(_VERIFIED_OFFSETS, OFFSET_DTYPE)):
            if offsets[0] < before or (offsets[1:] < offsets[:-1]).any() or offsets[-1] > shard.num_tokens:
                raise faulty(path)
            before = offsets[-1]
        path, start = self.path / f"{shard.name}.bin", 0
        for ids in _checked(path, shard.tokens_hash, np.empty(num_ids, self.manifest.dtype)):
            if ids.max() >= self.manifest.vocabulary_size:
                raise faulty(path)
            yield start, ids
            start += len(ids)


def _mapped(path: Path, dtype: np.dtype[Any], length: int) -> npt.NDArray[Any]:
    """Map a file of a store, which must hold exactly this many elements."""
    try:
        actual = path.lstat().st_size
    except OSError as error:
        raise faulty(path, "missing") from error
    if path.is_symlink():
        raise faulty(path, "is a link, which no store has")
    if actual != length * dtype.itemsize:
        raise faulty(path, f"{actual} bytes instead of {length * dtype.itemsize}")
    return np.memmap(path, dtype=dtype, mode="r")


def _checked(path: Path, content_hash: str, buffer: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Read a file piece by piece into ``buffer``, and compare its hash after the last piece.

    The file is read rather than mapped, so that a failing disk or a truncated file raises an error.
    """
    hasher, memory = xxhash.xxh3_128(), array_bytes(buffer, buffer.dtype)
    with open(path, "rb") as file:
        while num_bytes := file.readinto(memory):
            hasher.update(memory[:num_bytes])
            if num_bytes >= buffer.itemsize:
                yield buffer[: num_bytes // buffer.itemsize]
    if hasher.hexdigest() != content_hash:
        raise faulty(path)


class JoinedStore(TokenStore):
    """Several stores read as one in their order; a ``DataError`` refuses those of different tokenizers."""

    def __init__(self, stores: Sequence[TokenStore]) -> None:
        self._stores = tuple(stores)
        first = self._stores[0]
        if len({store.manifest.tokenizer_fingerprint for store in self._stores}) > 1:
            raise DataError(f"{first.path} and others: encoded by several tokenizers", "encode them by one")
        self.path = first.path
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


def take_lease(holder: object, folder: Path) -> None:
    """Protect the store in ``folder`` from eviction while ``holder`` lives, if the system can lock files.

    The lease is a shared lock on the manifest, which also works in a read-only cache. (Libraries for file
    locks only offer exclusive locks on files of their own, which must be written.) The system releases it
    when the process dies. The modification time of the manifest is the time of the last use.
    """
    if sys.platform == "win32":
        return  # Windows does not remove mapped files or move open ones.
    path = folder / MANIFEST_NAME
    with contextlib.suppress(OSError):
        while True:
            descriptor = os.open(path, os.O_RDONLY)
            # Closing releases the lock, unless a process forked since then holds the same open file.
            release = weakref.finalize(holder, os.close, descriptor)
            _lock(descriptor, exclusive=False)
            # The store may have been evicted between the opening and the lock.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                os.utime(descriptor)
                return
            release()


@contextlib.contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Whether no process has a lease on the store in ``folder``; none can take one inside the block."""
    try:
        descriptor = os.open(folder / MANIFEST_NAME, os.O_RDWR)
    except OSError:
        yield True  # Without a manifest the store cannot be opened at all.
        return
    try:
        yield _lock(descriptor, exclusive=True)
    finally:
        os.close(descriptor)


if sys.platform == "win32":

    def _lock(descriptor: int, *, exclusive: bool) -> bool:
        return True

else:
    import fcntl

    def _lock(descriptor: int, *, exclusive: bool) -> bool:
        """Wait for a shared lock (exclusive ones are held briefly), or try to take an exclusive one."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
        except BlockingIOError:
            return False
        return True
