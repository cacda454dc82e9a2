"""Files of tensors: the same as the library's of that name, and what is damaged or hostile is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from insight.interchange.tensor_files import INDEX, WEIGHTS, TensorFile, TensorFolder, write_tensors
from insight.runtime.errors import CheckpointError

library = pytest.importorskip("safetensors.torch")


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "matrix": torch.randn(3, 5, generator=generator),
        "half": torch.randn(7, generator=generator).bfloat16(),
        "whole": torch.arange(4),
        "flags": torch.tensor([True, False]),
        "number": torch.tensor(2.5),
        "none": torch.empty(0, 4),
    }


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    library.save_file(tensors(), tmp_path / WEIGHTS, metadata={"format": "pt"})
    folder = TensorFolder(tmp_path)
    assert set(folder) == set(tensors())
    for name, expected in tensors().items():
        assert folder[name].dtype == expected.dtype
        assert torch.equal(folder[name], expected)
        assert folder.shapes()[name].shape == expected.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_library_reads_what_is_written(tmp_path: Path, dtype: torch.dtype) -> None:
    written = {name: tensor.float() for name, tensor in tensors().items()}
    write_tensors(tmp_path / WEIGHTS, written.items(), written.items(), dtype)
    found = library.load_file(tmp_path / WEIGHTS)
    assert {name: tensor.dtype for name, tensor in found.items()} == dict.fromkeys(written, dtype)
    assert all(torch.equal(found[name], tensor.to(dtype)) for name, tensor in written.items())


def test_another_order_than_described_is_refused(tmp_path: Path) -> None:
    pairs = [("a", torch.ones(2)), ("b", torch.zeros(2))]
    with pytest.raises(ValueError, match="comes where"):
        write_tensors(tmp_path / WEIGHTS, pairs, reversed(pairs), torch.float32)


def file_of(header: Any, numbers: bytes = b"\0" * 8, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + numbers


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "half a length": b"\0\0\0",
    "a length beyond the file": file_of({}, length=1 << 20),
    "a header bomb": file_of({}, length=1 << 62),
    "no JSON": file_of(b"{nonsense"),
    "nested without end": file_of(b"[" * 100_000),
    "a number of a million digits": file_of(b'{"a": ' + b"9" * 1_000_000 + b"}"),
    "a list": file_of([1, 2]),
    "a name twice": file_of(b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "a": {}}'),
    "an entry that is a number": file_of({"a": 3}),
    "an unknown type": file_of({"a": entry(dtype="F8_E4M3")}),
    "a type that is no text": file_of({"a": entry(dtype=["F32"])}),
    "a negative size": file_of({"a": entry(shape=[-2])}),
    "a size that is true": file_of({"a": entry(shape=[True, 2])}),
    "sizes that overflow": file_of({"a": entry(shape=[2**40, 2**40])}),
    "many dimensions": file_of({"a": entry(shape=[1] * 4000 + [2])}),
    "offsets the wrong way round": file_of({"a": entry(data_offsets=[8, 0])}),
    "offsets beyond the file": file_of({"a": entry(shape=[2**20], data_offsets=[0, 2**22])}),
    "another size than its shape": file_of({"a": entry(shape=[3])}),
    "tensors on top of one another": file_of({"a": entry(), "b": entry()}),
    "a hole": file_of({"a": entry(shape=[1], data_offsets=[4, 8])}),
    "bytes of nothing": file_of({"a": entry()}, b"\0" * 12),
    "truncated": file_of({"a": entry()}, b"\0" * 7),
    "a pickle": b"\x80\x04\x95" + b"\0" * 40,
    "an archive of torch.save": b"PK\x03\x04" + b"\0" * 40,
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError) as raised:
        TensorFile(tmp_path / WEIGHTS)
    assert WEIGHTS in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert raised.value.remedy


def test_the_file_that_the_hostile_ones_are_made_of_is_read(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(file_of({"a": entry(), "__metadata__": {"format": "pt"}}))
    assert TensorFolder(tmp_path)["a"].tolist() == [0.0, 0.0]


def _index(folder: Path, **files: str) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}), encoding="utf-8")


def _outside(folder: Path) -> None:
    library.save_file({"a": torch.ones(2)}, folder.parent / "outside.safetensors")
    _index(folder, a="../outside.safetensors")


def _absolute(folder: Path) -> None:
    library.save_file({"a": torch.ones(2)}, folder.parent / "outside.safetensors")
    _index(folder, a=str(folder.parent / "outside.safetensors"))


def _elsewhere(folder: Path) -> None:
    library.save_file({"a": torch.ones(2)}, folder / "one.safetensors")
    _index(folder, a="one.safetensors", b="one.safetensors")


def _twice(folder: Path) -> None:
    for name in ("one", "two"):
        library.save_file({"a": torch.ones(2), name: torch.ones(2)}, folder / f"{name}.safetensors")
    _index(folder, a="one.safetensors", two="two.safetensors")


def _torn(folder: Path) -> None:
    library.save_file({"a": torch.ones(2)}, folder / "one.safetensors")
    content = (folder / "one.safetensors").read_bytes()
    (folder / "one.safetensors").write_bytes(content[:-1])
    _index(folder, a="one.safetensors")


SHARDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a path out of the folder": (_outside, "outside"),
    "an absolute path": (_absolute, "outside"),
    "a shard that is missing": (lambda folder: _index(folder, a="gone.safetensors"), "gone.safetensors"),
    "a shard that is no safetensors": (lambda folder: _index(folder, a="weights.bin"), "weights.bin"),
    "a shard that lacks its tensor": (_elsewhere, "lacks b"),
    "a tensor in two shards": (_twice, "a is in"),
    "a truncated shard": (_torn, "truncated"),
    "an index without names": (lambda folder: (folder / INDEX).write_text("[]") and None, "weight_map"),
    "an index that is no JSON": (lambda folder: (folder / INDEX).write_text("{") and None, "JSON"),
    "nothing": (lambda folder: None, WEIGHTS),
    "a pickle": (lambda folder: (folder / "pytorch_model.bin").write_bytes(b"x") and None, "pickle"),
}


@pytest.mark.parametrize(("make", "named"), SHARDS.values(), ids=SHARDS.keys())
def test_bad_folders_are_refused(tmp_path: Path, make: Callable[[Path], None], named: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    make(folder)
    with pytest.raises(CheckpointError, match=named):
        TensorFolder(folder)
