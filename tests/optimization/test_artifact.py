"""An artefact: the same bits in a fresh process, complete or not there, and nothing in it is run."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import calibration, scores, some_ids

from insight.checkpoints import LoadedCheckpoint
from insight.checkpoints.artifact import _hash, load_artifact, load_model
from insight.optimization import METHODS, OptimizedModel, QuantizationConfig, Quantizer, save_artifact
from insight.runtime.errors import CheckpointError, OutputError
from insight.runtime.hardware import compiler_path

FRESH = """
import sys, torch
from insight.checkpoints.artifact import load_model
ids = torch.load(sys.argv[1])
for folder in sys.argv[2:]:
    model = load_model(folder)
    with torch.inference_mode():
        torch.save(model.network.logits(model.network(ids)), folder + ".scores")
"""


def optimized(model: LoadedCheckpoint, method: str, **options: Any) -> OptimizedModel:
    return Quantizer(QuantizationConfig(method, **options)).apply(model, calibration(model.tokenizer))


def in_a_fresh_process(folders: list[Path], ids: torch.Tensor) -> list[torch.Tensor]:
    path = folders[0].parent / "ids.pt"
    torch.save(ids, path)
    command = [sys.executable, "-c", FRESH, str(path), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [torch.load(f"{folder}.scores") for folder in folders]


@pytest.fixture
def artifact(learned: LoadedCheckpoint, tmp_path: Path) -> Path:
    save_artifact(optimized(learned, "int8_dynamic"), tmp_path / "artifact")
    return tmp_path / "artifact"


def damage_layer(folder: Path) -> None:
    """Change one integer of one layer and make the folder look whole again."""
    weights = torch.load(folder / "weights.pt", weights_only=True)
    weights["blocks.1.feed_forward.down.weight"].qdata[0, 0] += 20
    torch.save(weights, folder / "weights.pt")
    rewrite(folder, weights_hash=_hash(folder / "weights.pt"))


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "quantization.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.slow
def test_bit_identical_in_a_fresh_process(learned: LoadedCheckpoint, tmp_path: Path) -> None:
    configs = [
        QuantizationConfig(method, dtype=dtype) for method in METHODS for dtype in ("float32", "bfloat16")
    ]
    configs.append(QuantizationConfig("int8_weight_only", group_size=16))
    ids = some_ids(3)
    expected, folders = [], []
    for index, config in enumerate(configs):
        model = Quantizer(config).apply(learned, calibration(learned.tokenizer))
        folders.append(tmp_path / str(index))
        save_artifact(model, folders[-1])
        expected.append(scores(model.checkpoint, ids))
    damage_layer(folders[2])
    found = in_a_fresh_process(folders, ids)
    same = [torch.equal(left, right) for left, right in zip(found, expected, strict=True)]
    # One was damaged on purpose: the comparison must see it, and only it.
    assert same == [index != 2 for index in range(len(configs))]
    assert [tensor.dtype for tensor in found] == [tensor.dtype for tensor in expected]


@pytest.mark.slow
@pytest.mark.skipif(compiler_path() is None, reason="torch.compile needs a C++ compiler")
def test_every_method_compiles_and_is_bit_identical_in_a_fresh_process(
    learned: LoadedCheckpoint, tmp_path: Path
) -> None:
    ids = some_ids(3)
    expected, folders = [], []
    for method in METHODS:
        torch._dynamo.reset()
        model = optimized(learned, method, compile=True)
        folders.append(tmp_path / method)
        save_artifact(model, folders[-1])
        expected.append(scores(model.checkpoint, ids))
        eager = scores(optimized(learned, method).checkpoint, ids)
        difference = (expected[-1] - eager).float().norm() / eager.float().norm()
        assert difference < 0.1, method
    found = in_a_fresh_process(folders, ids)
    assert all(torch.equal(left, right) for left, right in zip(found, expected, strict=True))


def test_everything_about_the_model_comes_back(learned: LoadedCheckpoint, artifact: Path) -> None:
    loaded = load_model(artifact)
    assert loaded.network_config == learned.network_config
    assert loaded.tokenizer.fingerprint() == learned.tokenizer.fingerprint()
    assert loaded.metadata["quantization"]["method"] == "int8_dynamic"
    assert {key: loaded.metadata[key] for key in learned.metadata} == learned.metadata
    assert not loaded.network.training
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    described = json.loads((artifact / "quantization.json").read_text())
    assert "blocks.0.attention.output" in described["report"]["modules_quantized"]
    assert {kept["name"] for kept in described["report"]["modules_kept"]} >= {"embedding", "norm"}


def test_an_existing_folder_is_not_touched(learned: LoadedCheckpoint, artifact: Path) -> None:
    before = {path.name: path.read_bytes() for path in artifact.iterdir()}
    with pytest.raises(OutputError, match="exists already"):
        save_artifact(optimized(learned, "bf16"), artifact)
    assert {path.name: path.read_bytes() for path in artifact.iterdir()} == before


def test_a_full_disk_leaves_nothing(
    learned: LoadedCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("insight.data.tokenizers.base.atomic_write_text", full)
    with pytest.raises(OutputError, match="the disk is full"):
        save_artifact(optimized(learned, "bf16"), tmp_path / "artifact")
    assert list(tmp_path.iterdir()) == []


class Payload:
    """What a hostile file would run when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path("executed"),))  # type: ignore[return-value]


def test_code_in_the_weights_is_not_run(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"embedding.weight": Payload()}, artifact / "weights.pt")
    rewrite(artifact, weights_hash=_hash(artifact / "weights.pt"))
    with pytest.raises(CheckpointError, match="holds code or objects"):
        load_artifact(artifact)
    assert not (tmp_path / "executed").exists()


def cut(folder: Path) -> None:
    data = (folder / "weights.pt").read_bytes()
    (folder / "weights.pt").write_bytes(data[: len(data) // 2])


def flip(folder: Path) -> None:
    data = bytearray((folder / "weights.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "weights.pt").write_bytes(data)


def lose_a_tensor(folder: Path) -> None:
    weights = torch.load(folder / "weights.pt", weights_only=True)
    del weights["norm.weight"]
    torch.save(weights, folder / "weights.pt")
    rewrite(folder, weights_hash=_hash(folder / "weights.pt"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "missing or truncated"),
        (flip, "not those that were written"),
        (lose_a_tensor, "norm.weight"),
        (lambda folder: (folder / "weights.pt").unlink(), "missing or truncated"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda folder: (folder / "quantization.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "quantization.json").write_text("[]"), "is damaged"),
        (lambda folder: rewrite(folder, format_version=99), "format version 99"),
        (lambda folder: rewrite(folder, network=None), "outside the allowed packages"),
        (
            lambda folder: rewrite(folder, config={"class_path": "os.path.join"}),
            "outside the allowed packages",
        ),
        (lambda folder: rewrite(folder, metadata=None), "is damaged"),
    ],
)
def test_damage_is_named(artifact: Path, damage: Any, message: str) -> None:
    damage(artifact)
    with pytest.raises(CheckpointError, match=message):
        load_artifact(artifact)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no quantization\.json"):
        load_artifact(tmp_path)


def test_a_compiled_artefact_does_not_run_eagerly_in_silence(
    learned: LoadedCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insight.optimization.quantizer.compiler_path", lambda: "g++")
    save_artifact(optimized(learned, "bf16", compile=True), tmp_path / "artifact")
    monkeypatch.setattr("insight.checkpoints.artifact.compiler_path", lambda: None)
    with pytest.raises(CheckpointError, match="there is no C"):
        load_artifact(tmp_path / "artifact")


@pytest.mark.parametrize("method", ["int8_dynamic", "int8_static"])
def test_integers_that_overflow_here_are_refused(
    learned: LoadedCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    made_on = "insight.optimization.methods.should_reduce_range"
    for reduced in (False, True):
        monkeypatch.setattr(made_on, lambda device, reduced=reduced: reduced)
        save_artifact(optimized(learned, method), tmp_path / str(reduced))
    monkeypatch.setattr("torchao.utils.should_reduce_range", lambda device: True)
    assert load_artifact(tmp_path / "True").metadata["quantization"]["method"] == method
    with pytest.raises(CheckpointError, match="overflow on this processor"):
        load_artifact(tmp_path / "False")
