"""Tensors in files of the format safetensors, which holds numbers and no code.

A file is the length of a header (8 bytes), the header in JSON, and the bytes of the tensors one after the
other (https://github.com/huggingface/safetensors). Files are read tensor by tensor and not memory-mapped, so
that a file adds one tensor to the memory in use, and every number of the header is checked before it is used.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from insight.runtime.errors import CheckpointError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_LENGTH = struct.Struct("<Q")
# A tensor takes about 120 bytes of the header, and the largest published files hold some thousands.
_LONGEST_HEADER = 1 << 25
_MOST_DIMENSIONS = 8
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.bin", "consolidated.00.pth")
_METADATA = "__metadata__"
_FETCH_AGAIN = "fetch the file again"


class _Place(NamedTuple):
    """The place of a tensor in its file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    num_bytes: int


class TensorFile:
    """One file, whose header has been read and checked.

    Raises:
        CheckpointError: The file is no safetensors file, is truncated, or its header contradicts itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.places = self._read_header(file)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror})", _FETCH_AGAIN) from error

    def read(self, name: str) -> torch.Tensor:
        """The tensor of this name, in its own type."""
        place = self.places[name]
        buffer = torch.empty(place.num_bytes, dtype=torch.uint8)
        with self.path.open("rb") as file:
            file.seek(place.start)
            if file.readinto(_bytes_of(buffer)) != place.num_bytes:
                raise self._wrong(f"it ends inside of {name}")
        return buffer.view(place.dtype).reshape(place.shape)

    def _read_header(self, file: BinaryIO) -> dict[str, _Place]:
        size = self.path.stat().st_size
        beginning = file.read(_LENGTH.size)
        if beginning[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            problem = f"{self.path}: is a pickle, which can run code, and no safetensors file"
            raise CheckpointError(problem, "fetch the model's safetensors files")
        if len(beginning) < _LENGTH.size:
            raise self._wrong("it has no header")
        (length,) = _LENGTH.unpack(beginning)
        if length > _LONGEST_HEADER:
            raise self._wrong(f"its header claims {length:,} bytes")
        text = file.read(length)
        first = _LENGTH.size + length
        if len(text) < length:
            raise self._wrong(f"its header claims {length:,} bytes of a file of {size:,}")
        try:
            header = json.loads(text, object_pairs_hook=_without_repetition)
        except (ValueError, RecursionError) as error:
            raise self._wrong(f"its header is no JSON ({error})") from error
        if not isinstance(header, dict):
            raise self._wrong("its header is no JSON object")
        places = {
            name: self._place(name, entry, first) for name, entry in header.items() if name != _METADATA
        }
        end = first
        for name, place in sorted(places.items(), key=lambda item: (item[1].start, item[1].num_bytes)):
            if place.start != end:
                raise self._wrong(f"{name} begins at byte {place.start:,}, the tensor before ends at {end:,}")
            end += place.num_bytes
        if end != size:
            state = "truncated" if end > size else "longer than its header says"
            raise self._wrong(f"it is {state}: {size:,} bytes instead of {end:,}")
        return places

    def _place(self, name: str, entry: Any, first: int) -> _Place:
        if not isinstance(entry, dict):
            raise self._wrong(f"{name} is described by no object")
        dtype: Any = entry.get("dtype")
        shape: Any = entry.get("shape")
        offsets: Any = entry.get("data_offsets")
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            problem = f"{self.path}: {name} has the type {str(dtype)[:20]!r}"
            raise CheckpointError(problem, f"give weights in one of {', '.join(list(_DTYPES)[:4])}")
        if not _are_sizes(shape) or len(shape) > _MOST_DIMENSIONS:
            raise self._wrong(f"the shape of {name} is {str(shape)[:60]}")
        if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise self._wrong(f"the offsets of {name} are {str(offsets)[:60]}")
        num_bytes = offsets[1] - offsets[0]
        if math.prod(shape) * _DTYPES[dtype].itemsize != num_bytes:
            raise self._wrong(f"{name} of shape {shape} in {dtype} has {num_bytes:,} bytes")
        return _Place(_DTYPES[dtype], tuple(shape), first + offsets[0], num_bytes)

    def _wrong(self, reason: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: the file is damaged: {reason}", _FETCH_AGAIN)


class TensorFolder(Mapping[str, torch.Tensor]):
    """The tensors of a folder by name, each read when it is asked for.

    The folder holds :data:`WEIGHTS`, or several files with the :data:`INDEX` that says which holds what.

    Raises:
        CheckpointError: There are no weights, they are pickles, or a file or the index is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file_of: dict[str, tuple[TensorFile, str]]
        if (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file():
            self._file_of = self._of_index(folder / INDEX)
        elif (folder / WEIGHTS).is_file():
            file = TensorFile(folder / WEIGHTS)
            self._file_of = {name: (file, name) for name in file.places}
        else:
            raise self._without_weights()

    def put_below(self, prefix: str, *others: str) -> None:
        """Let all names begin with ``prefix``, except for those that begin with it or one of ``others``.

        Files of a network without its head lack the name of the part that they hold.
        """
        self._file_of = {
            name if name.startswith((prefix, *others)) else prefix + name: place
            for name, place in self._file_of.items()
        }

    def __getitem__(self, name: str) -> torch.Tensor:
        file, name_there = self._file_of[name]
        return file.read(name_there)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def __contains__(self, name: object) -> bool:
        return name in self._file_of

    def shapes(self) -> dict[str, torch.Tensor]:
        """All tensors without their numbers, on the ``meta`` device."""
        places = {name: file.places[there] for name, (file, there) in self._file_of.items()}
        return {
            name: torch.empty(place.shape, dtype=place.dtype, device="meta") for name, place in places.items()
        }

    def _of_index(self, path: Path) -> dict[str, tuple[TensorFile, str]]:
        try:
            index = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repetition)
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: no JSON ({error})", _FETCH_AGAIN) from error
        names = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
            raise CheckpointError(f"{path}: has no weight_map of names and files", _FETCH_AGAIN)
        files = {}
        for file in sorted(set(names.values())):
            # A name with a path could lead out of the folder.
            if not file.endswith(".safetensors") or Path(file).name != file or "\\" in file or ":" in file:
                problem = f"{path}: names the file {file[:80]!r}, which is no safetensors file of this folder"
                raise CheckpointError(problem, "do not use it")
            if not (self.folder / file).is_file():
                raise CheckpointError(f"{self.folder / file}: is missing", "fetch all files of the model")
            files[file] = TensorFile(self.folder / file)
        for name, file in names.items():
            if name not in files[file].places:
                problem = f"{self.folder / file}: lacks {name}, which the index puts there"
                raise CheckpointError(problem, _FETCH_AGAIN)
        found: dict[str, tuple[TensorFile, str]] = {}
        for opened in files.values():
            for name in opened.places:
                if name in found:
                    problem = f"{opened.path}: {name} is in {found[name][0].path.name} too"
                    raise CheckpointError(problem, _FETCH_AGAIN)
                found[name] = (opened, name)
        return found

    def _without_weights(self) -> CheckpointError:
        pickle = next((name for name in _PICKLES if (self.folder / name).is_file()), None)
        if pickle is None:
            problem = f"{self.folder}: holds no {WEIGHTS} and no {INDEX}"
            return CheckpointError(problem, "name the folder of a model that save_pretrained wrote")
        problem = f"{self.folder}: holds {pickle}, a pickle, which can run code and is not read"
        return CheckpointError(problem, "fetch the model's safetensors files")


def write_tensors(
    path: Path,
    described: Iterable[tuple[str, torch.Tensor]],
    tensors: Iterable[tuple[str, torch.Tensor]],
    dtype: torch.dtype,
) -> None:
    """Write tensors to one file, one at a time.

    Args:
        path: The file.
        described: All names with tensors of their shapes, which may be on the ``meta`` device.
        tensors: Their numbers, in that order.
        dtype: A floating-point type, in which all of them are written.
    """
    name_of_type = next(name for name, known in _DTYPES.items() if known == dtype)
    shapes = {name: list(tensor.shape) for name, tensor in described}
    sizes = [math.prod(shape) * dtype.itemsize for shape in shapes.values()]
    ends = list(itertools.accumulate(sizes))
    header: dict[str, Any] = {_METADATA: {"format": "pt"}}
    for (name, shape), size, end in zip(shapes.items(), sizes, ends, strict=True):
        header[name] = {"dtype": name_of_type, "shape": shape, "data_offsets": [end - size, end]}
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 8)  # the numbers then begin at a multiple of 8
    with path.open("wb") as file:
        file.write(_LENGTH.pack(len(text)) + text)
        for (name, tensor), (expected, shape) in zip(tensors, shapes.items(), strict=True):
            if name != expected or list(tensor.shape) != shape:
                raise ValueError(f"{name} {tuple(tensor.shape)} comes where {expected} {shape} was described")
            numbers = tensor.detach().to("cpu", dtype).contiguous()
            file.write(_bytes_of(numbers.flatten().view(torch.uint8)))


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a flat uint8 tensor."""
    array: Any = tensor.numpy()
    return memoryview(array)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found
