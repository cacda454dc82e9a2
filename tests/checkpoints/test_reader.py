"""Reading checkpoints: what was saved comes back, what is wrong is named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from tiny_training import train

from insight.checkpoints import load_checkpoint, load_weights_into
from insight.data import BPETokenizerConfig
from insight.runtime.errors import CheckpointError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    folder = tmp_path_factory.mktemp("run")
    _, module, trainer = train(folder, 3)
    path = folder / "last.ckpt"
    trainer.save_checkpoint(path)
    return path, module.network


def changed(source: Path, folder: Path, change: Any) -> Path:
    contents = torch.load(source, weights_only=True)
    change(contents)
    path = folder / "changed.ckpt"
    torch.save(contents, path)
    return path


def test_network_and_tokenizer_come_back(checkpoint: tuple[Path, Any]) -> None:
    path, network = checkpoint
    loaded = load_checkpoint(path)
    ids = torch.tensor([loaded.tokenizer.encode("Emma Woodhouse")])
    network.eval()
    assert torch.equal(network.logits(network(ids)), loaded.network.logits(loaded.network(ids)))
    assert loaded.network_config == network.config
    assert loaded.metadata["step"] == 3
    assert not loaded.network.training


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        load_checkpoint(tmp_path / "none.ckpt")


def test_file_that_is_no_checkpoint(tmp_path: Path, checkpoint: tuple[Path, Any]) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(b"It is a truth universally acknowledged")
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        load_checkpoint(path)
    torch.save({"weights": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="is not a checkpoint of insight"):
        load_checkpoint(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_file(tmp_path: Path, checkpoint: tuple[Path, Any], share: float) -> None:
    data = checkpoint[0].read_bytes()
    path = tmp_path / "x.ckpt"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(path)


class Payload:
    """What a hostile file would run when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path("executed"),))  # type: ignore[return-value]


def test_code_in_a_file_is_not_run(
    tmp_path: Path, checkpoint: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = changed(checkpoint[0], tmp_path, lambda contents: contents.update(payload=Payload()))
    with pytest.raises(CheckpointError, match="holds code"):
        load_checkpoint(path)
    assert not Path("executed").exists()
    torch.load(path, weights_only=False)
    assert Path("executed").exists(), "the planted file must be dangerous, or the test proves nothing"


def test_class_outside_insight_is_not_built(tmp_path: Path, checkpoint: tuple[Path, Any]) -> None:
    def redirect(contents: dict[str, Any]) -> None:
        contents["insight"]["network"]["class_path"] = "subprocess.Popen"

    with pytest.raises(CheckpointError, match="outside the allowed packages"):
        load_checkpoint(changed(checkpoint[0], tmp_path, redirect))


def test_other_version(tmp_path: Path, checkpoint: tuple[Path, Any]) -> None:
    path = changed(checkpoint[0], tmp_path, lambda c: c["insight"].update(format_version=99))
    with pytest.raises(CheckpointError, match="format version 99, this insight reads 1"):
        load_checkpoint(path)


def test_tensors_that_do_not_fit_are_named(tmp_path: Path, checkpoint: tuple[Path, Any]) -> None:
    def cut(contents: dict[str, Any]) -> None:
        contents["state_dict"]["network.embedding.weight"] = torch.zeros(3, 32)

    with pytest.raises(CheckpointError, match=r"embedding\.weight has shape \(3, 32\)"):
        load_checkpoint(changed(checkpoint[0], tmp_path, cut))

    def drop(contents: dict[str, Any]) -> None:
        del contents["state_dict"]["network.norm.weight"]

    with pytest.raises(CheckpointError, match=r"lacks the tensor norm\.weight"):
        load_checkpoint(changed(checkpoint[0], tmp_path, drop))


@pytest.mark.parametrize("key", ["network", "tokenizer", "vocabulary_size", "sequence_length"])
def test_incomplete_description_is_damage(tmp_path: Path, checkpoint: tuple[Path, Any], key: str) -> None:
    with pytest.raises(CheckpointError, match=f"damaged .*{key}"):
        load_checkpoint(changed(checkpoint[0], tmp_path, lambda c: c["insight"].pop(key)))


@pytest.mark.parametrize(
    ("key", "value"),
    [("network", "a string"), ("tokenizer", 3), ("tokenizer", "{}"), ("vocabulary_size", "x")],
)
def test_description_of_the_wrong_type_is_refused(
    tmp_path: Path, checkpoint: tuple[Path, Any], key: str, value: Any
) -> None:
    path = changed(checkpoint[0], tmp_path, lambda c: c["insight"].update({key: value}))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_weights_go_into_a_network_of_the_same_shape(tmp_path: Path, checkpoint: tuple[Path, Any]) -> None:
    path, trained = checkpoint
    fresh = trained.config.build(trained.vocabulary_size)
    before = fresh.head_weight.clone()
    load_weights_into(fresh, path, load_checkpoint(path).tokenizer)
    assert not torch.equal(fresh.head_weight, before)
    assert torch.equal(fresh.head_weight, trained.head_weight)


def test_weights_of_another_tokenizer_or_network_are_refused(checkpoint: tuple[Path, Any]) -> None:
    path, trained = checkpoint
    other = BPETokenizerConfig(vocabulary_size=280).build(["It is a truth universally acknowledged. " * 50])
    fresh = trained.config.build(trained.vocabulary_size)
    before = fresh.head_weight.clone()
    with pytest.raises(CheckpointError, match="another tokenizer"):
        load_weights_into(fresh, path, other)
    assert torch.equal(fresh.head_weight, before)
    with pytest.raises(CheckpointError, match=r"has shape \(257, 32\), the network \(300, 32\)"):
        load_weights_into(trained.config.build(300), path)
