"""Files of token ids that other programs wrote: the .bin files of nanoGPT and llm.c, and those of litgpt.

None of them states which tokenizer made the ids, so the user names it. Nothing in them is ever executed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from insight.data.sources.decoding import open_source
from insight.data.sources.formats import Source
from insight.runtime.errors import DataError

TOKEN_FORMAT = "bin"
_CHUNK_FORMAT = "litdata-"
_BATCH_IDS = 1 << 20

# TinyLlama and lit-gpt 0.x (`packed_dataset.py`): magic, version, type code, ids per chunk.
_PACKED_MAGIC = b"LITPKDS"
_PACKED_HEADER = struct.Struct("<7sQBQ")
_PACKED_TYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
# llm.c (`dev/data/data_common.py`): 256 int32 values; the first three are magic, version and number of ids.
_LLM_C_HEADER_BYTES = 1024
_LLM_C_TYPES = {(20240520, 1): "<u2", (20240801, 7): "<u4"}
# litdata (`streaming/constants.py`), with which litgpt prepares text: type codes of one-dimensional items.
_CHUNK_TYPES = {
    "no_header_tensor": {
        11: "u1",
        12: "i1",
        13: "i2",
        14: "i2",
        15: "i4",
        16: "i4",
        17: "i8",
        18: "i8",
        20: "u2",
    },
    "no_header_numpy": {0: "i1", 1: "i2", 2: "i4", 3: "i8", 4: "u1", 5: "u2", 6: "u4"},
}
_INDEX_NAME = "index.json"
# If every second one of this many two-byte ids is 0, they are four-byte ids.
_LEAST_GUESSED_IDS = 16
_MOST_GUESSED_IDS = 1 << 12


class TokenBatch(NamedTuple):
    """The ids of one or more documents, int64 ``(tokens,)``, without end-of-text ids.

    ``offsets``, int64 ``(documents + 1,)``, are the starts and the last end; the last document may continue.
    """

    ids: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    continues: bool


class _Layout(NamedTuple):
    """The type of the ids of a file, the position of the first one, and the document ends that are stored."""

    dtype: np.dtype[Any]
    first_byte: int
    ends: npt.NDArray[np.int64] = np.zeros(0, np.int64)


def token_folder_files(folder: Path) -> list[Source]:
    """The files of a folder prepared by litgpt, in order; ``[]`` for other folders.

    A ``DataError`` says that litgpt has prepared the folder, but that it is damaged or holds no plain ids.
    """
    file = folder / _INDEX_NAME
    if not file.is_file():
        return []
    try:
        index = json.loads(file.read_bytes())
        chunks, config = index["chunks"], index["config"]
        names = [chunk["filename"] for chunk in chunks]
        are_flat = all(type(chunk["dim"]) is int for chunk in chunks)
        kinds = list(config["data_format"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return []  # An index.json of another program.
    if len(kinds) != 1 or config.get("compression") or config.get("encryption"):
        problem = f"{file}: compressed, encrypted or of {len(kinds)} columns"
        raise DataError(problem, "prepare plain token ids, as litgpt does")
    if not are_flat:  # Each item is then preceded by its size.
        remedy = "optimize with item_loader=TokensLoader(), as litgpt does"
        raise DataError(f"{file}: not prepared for a loader of tokens", remedy)
    kind, _, number = str(kinds[0]).partition(":")
    code = _CHUNK_TYPES.get(kind, {}).get(int(number) if number.isdecimal() else -1)
    if code is None:
        raise DataError(f"{file}: data_format {kinds[0]!r} holds no token ids", "prepare them as litgpt does")
    for name in names:
        # The folder may be untrusted: a name with a folder in it could point outside.
        if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
            raise DataError(f"{file}: names {name!r}, which is no file of this folder", "fetch it again")
    files = [folder / name for name in names]
    return [Source(each.resolve(), str(each), f"{_CHUNK_FORMAT}{code}", "") for each in files]


def read_token_batches(source: Source, vocabulary_size: int, end_of_text_id: int) -> Iterator[TokenBatch]:
    """The ids of a file, about a million at a time; documents end at the end-of-text id and with the file.

    Empty documents are left out.

    Raises:
        DataError: The file cannot be read, is damaged, or holds an id outside the vocabulary.
    """
    with open_source(source.path, source.name, "") as file:
        dtype, first_byte, ends = _layout(file, source, vocabulary_size)
        file.seek(first_byte)
        first, is_open = 0, False
        while data := file.read(_BATCH_IDS * dtype.itemsize):
            ids = np.frombuffer(data, dtype=dtype).astype(np.int64)
            wrong = np.flatnonzero((ids < 0) | (ids >= vocabulary_size))
            if len(wrong):
                found = f"token {first + int(wrong[0])} is {int(ids[wrong[0]])} (read as {dtype.name})"
                problem = f"{source.name}: {found}, outside 0..{vocabulary_size - 1}"
                raise DataError(problem, "name the tokenizer that made these ids")
            inside = ends[(ends > first) & (ends <= first + len(ids))] - first
            batch = _documents(ids, inside, end_of_text_id, is_open)
            if len(batch.offsets) > 1:
                yield batch
                is_open = batch.continues
            first += len(ids)
        if is_open:
            yield TokenBatch(np.zeros(0, np.int64), np.zeros(2, np.int64), False)


def _documents(
    ids: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], end_of_text_id: int, is_open: bool
) -> TokenBatch:
    """Divide ``ids`` into documents, which end at ``ends`` (numbers of ids) and at end-of-text ids.

    If ``is_open`` is true, the ids begin inside a document.
    """
    kept = ids != end_of_text_id
    kept_before = np.concatenate([[0], np.cumsum(kept)])
    all_ends = np.union1d(kept_before[np.flatnonzero(~kept)], kept_before[ends])
    if len(all_ends) and all_ends[0] == 0 and not is_open:
        all_ends = all_ends[1:]
    text = ids[kept]
    # A document that began earlier and has no ids here stays open.
    continues = (all_ends[-1] if len(all_ends) else 0) < len(text)
    offsets = np.concatenate([[0], all_ends, [len(text)] if continues else all_ends[:0]])
    return TokenBatch(text, offsets.astype(np.int64), bool(continues))


def _layout(file: IO[bytes], source: Source, vocabulary_size: int) -> _Layout:
    size = source.path.stat().st_size
    head = file.read(max(_LLM_C_HEADER_BYTES, 2 * _MOST_GUESSED_IDS))
    dtype = None
    if len(head) >= _LLM_C_HEADER_BYTES:
        magic, version, num_ids = struct.unpack_from("<3i", head)
        code = _LLM_C_TYPES.get((magic, version))
        dtype = np.dtype(code) if code else None
    if source.format.startswith(_CHUNK_FORMAT):
        layout = _chunk_layout(file, source, size)
    elif head.startswith(_PACKED_MAGIC):
        if len(head) < _PACKED_HEADER.size:
            raise DataError(f"{source.name}: ends in its header", "make or fetch it again")
        _, version, code, _ = _PACKED_HEADER.unpack_from(head)
        if version != 1 or code not in _PACKED_TYPES:
            problem = f"{source.name}: packed ids of version {version} and type {code}"
            raise DataError(problem, "pack whole numbers, version 1")
        layout = _Layout(np.dtype(_PACKED_TYPES[code]), _PACKED_HEADER.size)
    elif dtype and size == _LLM_C_HEADER_BYTES + num_ids * dtype.itemsize:
        layout = _Layout(dtype, _LLM_C_HEADER_BYTES)
    else:
        # Two bytes, as nanoGPT writes them, unless the vocabulary or the ids need four.
        halves = np.frombuffer(head[: len(head) // 4 * 4], dtype="<u2")[:_MOST_GUESSED_IDS]
        has_zeros = size % 4 == 0 and len(halves) >= _LEAST_GUESSED_IDS and not halves[1::2].any()
        is_wide = vocabulary_size > 1 << 16 or (has_zeros and halves.any())
        layout = _Layout(np.dtype("<u4" if is_wide else "<u2"), 0)
    if (size - layout.first_byte) % layout.dtype.itemsize:
        problem = f"{size - layout.first_byte} bytes are no whole number of {layout.dtype.name} ids"
        raise DataError(f"{source.name}: {problem}", "make or fetch it again")
    return layout


def _chunk_layout(file: IO[bytes], source: Source, size: int) -> _Layout:
    """Read the header: the number of items, the start of each and the end of the last one (uint32)."""
    dtype = np.dtype(f"<{source.format.removeprefix(_CHUNK_FORMAT)}")
    file.seek(0)
    num_items = int.from_bytes(file.read(4), "little")
    first_byte = 4 * (num_items + 2)
    starts = np.zeros(0, np.int64)
    if first_byte <= size:
        starts = np.frombuffer(file.read(first_byte - 4), dtype="<u4").astype(np.int64)
    lengths = np.diff(starts)
    is_whole = len(starts) and starts[0] == first_byte and starts[-1] == size and not (lengths < 0).any()
    if not is_whole or (lengths % dtype.itemsize).any():
        raise DataError(f"{source.name}: damaged", "prepare or fetch it again")
    return _Layout(dtype, first_byte, (starts[1:] - first_byte) // dtype.itemsize)
