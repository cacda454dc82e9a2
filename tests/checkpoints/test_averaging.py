"""The mean of checkpoints is the mean of their weights, of one model alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import insight
from insight.checkpoints import averaging, load_checkpoint
from insight.checkpoints.averaging import average_checkpoints
from insight.checkpoints.format import CONTENT, CheckpointContent
from insight.checkpoints.writer import write_file
from insight.data import BPETokenizerConfig, ByteTokenizerConfig
from insight.models import BalanceBias, DecoderConfig, GroupedQueryAttention, MixtureOfExperts
from insight.runtime.errors import CheckpointError, ConfigError, OutputError

CONFIG = DecoderConfig(
    hidden_size=16,
    num_layers=1,
    attention=GroupedQueryAttention(num_heads=2, num_key_value_heads=1),
    feed_forward=MixtureOfExperts(4, 2, intermediate_size=8, balance=BalanceBias(0.01)),
    max_sequence_length=32,
    tie_embeddings=True,
)
BYTES = ByteTokenizerConfig().build(())


def checkpoint(
    path: Path,
    step: int,
    dtype: torch.dtype = torch.float32,
    config: DecoderConfig = CONFIG,
    tokenizer: Any = BYTES,
    **more: Any,
) -> Path:
    """A checkpoint as training writes it, with random weights."""
    torch.manual_seed(step)
    network = config.build(tokenizer.vocabulary_size)
    # Large and small numbers, of which a sum in less than float64 loses digits.
    weights = {
        f"network.{name}": (torch.randn(tensor.shape) * 10.0 ** torch.randint(-4, 5, tensor.shape)).to(dtype)
        for name, tensor in network.state_dict().items()
    }
    content = CheckpointContent(
        network=config.to_dict(),
        tokenizer=tokenizer.to_json(),
        vocabulary_size=tokenizer.vocabulary_size,
        sequence_length=8,
        random_states=[],
        guard={"num_in_a_row": 0},
    )
    saved = {"state_dict": weights, CONTENT: content.to_dict(), "global_step": step, "optimizer_states": []}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file({**saved, **more}, path)
    return path


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(path, weights_only=True)["state_dict"])


def is_mean(mean: dict[str, torch.Tensor], paths: list[Path]) -> bool:
    """Whether every number is that of NumPy in float64, rounded once."""
    of_files = [weights_of(path) for path in paths]
    assert mean.keys() == of_files[0].keys()
    expected = {
        name: torch.from_numpy(np.mean([one[name].double().numpy() for one in of_files], axis=0)).to(
            tensor.dtype
        )
        for name, tensor in mean.items()
    }
    return all(torch.equal(mean[name], expected[name]) for name in mean)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fault", [None, "sum in the type of the weights", "last file left out"])
def test_every_number_is_the_mean_in_float64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, fault: str | None
) -> None:
    paths = [checkpoint(tmp_path / f"{step}.ckpt", step, dtype) for step in (1, 2, 3)]
    if fault == "sum in the type of the weights":
        monkeypatch.setattr(averaging, "_mean", lambda tensors: sum(tensors[1:], tensors[0]) / len(tensors))
    elif fault is not None:
        monkeypatch.setattr(averaging, "_mean", lambda tensors: sum(tensors[:-1]) / 2)
    contents = average_checkpoints(paths)
    assert is_mean(contents["state_dict"], paths) is (fault is None)
    assert {tensor.dtype for tensor in contents["state_dict"].values()} == {dtype}
    assert contents["global_step"] == 3
    assert not contents.keys() & {"optimizer_states", "callbacks", "loops"}
    assert "guard" not in contents[CONTENT]


def test_the_mean_of_equal_weights_is_these_weights(tmp_path: Path) -> None:
    paths = [checkpoint(tmp_path / "a.ckpt", 1)]
    paths += [tmp_path / f"{name}.ckpt" for name in "bcdefg"]
    for path in paths[1:]:
        path.write_bytes(paths[0].read_bytes())
    found = average_checkpoints(paths)["state_dict"]
    assert all(torch.equal(found[name], tensor) for name, tensor in weights_of(paths[0]).items())


def test_a_run_gives_its_newest_checkpoints(tmp_path: Path) -> None:
    run = tmp_path / "run"
    paths = [checkpoint(run / f"checkpoints/last-{step:08d}.ckpt", step) for step in (4, 30, 12, 20)]
    for name in ("best", "last"):
        (run / f"checkpoints/{name}.ckpt").hardlink_to(paths[1])
    result = insight.average_weights([str(run)], last=3)
    assert result.steps == (12, 20, 30)
    assert result.path == run / "checkpoints/average.ckpt"
    assert [path.stat().st_ino for path in result.checkpoints] == [paths[n].stat().st_ino for n in (2, 3, 1)]
    assert is_mean(weights_of(result.path), list(result.checkpoints))
    assert load_checkpoint(result.path).metadata["step"] == 30
    # The result is no checkpoint of the training, neither for a second mean nor for resuming.
    everything = insight.average_weights([str(run)], tmp_path / "all.ckpt")
    assert everything.steps == (4, 12, 20, 30)
    newest = insight.RunFolder(run).find_newest_checkpoint()
    assert newest == run / "checkpoints/last.ckpt"
    newest.unlink()
    newest = insight.RunFolder(run).find_newest_checkpoint()
    assert newest is not None
    assert newest.name != "average.ckpt"


def test_files_are_averaged_in_the_order_of_their_steps(tmp_path: Path) -> None:
    later, earlier = (checkpoint(tmp_path / f"{step}.ckpt", step) for step in (9, 5))
    result = insight.average_weights([str(later), str(earlier)], tmp_path / "mean.ckpt")
    assert (result.steps, result.checkpoints) == ((5, 9), (earlier, later))
    assert torch.load(result.path, weights_only=True)["global_step"] == 9


def test_a_file_with_several_names_is_used_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a shell finds them with ``checkpoints/*.ckpt``."""
    first, last = (checkpoint(tmp_path / f"last-{step:08d}.ckpt", step) for step in (1, 2))
    (tmp_path / "last.ckpt").hardlink_to(last)
    result = insight.average_weights(
        [str(path) for path in sorted(tmp_path.iterdir())], tmp_path / "mean.ckpt"
    )
    assert (result.steps, result.checkpoints) == ((1, 2), (first, last))
    assert is_mean(weights_of(result.path), [first, last])
    assert "last.ckpt is the same file as" in capsys.readouterr().err


def test_what_has_no_mean_is_refused_and_nothing_written(tmp_path: Path) -> None:
    run = tmp_path / "run"
    one, two = (checkpoint(run / f"checkpoints/step-{step:08d}.ckpt", step) for step in (1, 2))
    (run / "checkpoints/last.ckpt").hardlink_to(two)
    wider = DecoderConfig(**{**vars(CONFIG), "hidden_size": 32})
    other = checkpoint(tmp_path / "wider.ckpt", 3, config=wider)
    words = BPETokenizerConfig(257).build(["some words and more words"] * 9)
    foreign = checkpoint(tmp_path / "words.ckpt", 3, tokenizer=words)
    torn = tmp_path / "torn.ckpt"
    torn.write_bytes(one.read_bytes()[:-500])
    single = checkpoint(tmp_path / "single/checkpoints/last.ckpt", 1).parents[1]
    alone = insight.average_weights([str(one), str(two)], tmp_path / "alone.ckpt").path
    there = sorted(tmp_path.rglob("*"))
    cases: list[tuple[list[Path], dict[str, Any], type[Exception], list[str]]] = [
        ([one], {}, CheckpointError, ["is one file", "name its run folder"]),
        ([single], {}, CheckpointError, ["keeps 1 checkpoint of its training (of step 1)", "keep_last: 5"]),
        ([run], {"last": 3}, CheckpointError, ["keeps 2 checkpoints", "(of step 1, 2), not 3", "--last 2"]),
        ([run], {"last": 1}, ConfigError, ["last=1", "at least 2"]),
        ([run], {"last": 2.5}, ConfigError, ["last=2.5", "whole number"]),
        ([one, two], {"last": 2}, ConfigError, ["last=2", "one run"]),
        ([one, one], {}, CheckpointError, ["is one file"]),
        (
            [one, other],
            {},
            CheckpointError,
            ["CHECKPOINTS=", "another network", "hidden_size", "wider.ckpt is the newest"],
        ),
        ([foreign, two], {}, CheckpointError, ["another tokenizer", "words.ckpt"]),
        ([one, torn], {}, CheckpointError, ["truncated"]),
        ([one, two, alone], {}, CheckpointError, ["holds only weights, as an average does"]),
        ([tmp_path / "none.ckpt", one], {}, CheckpointError, ["CHECKPOINTS=", "does not exist"]),
        ([one, two], {"output": one}, OutputError, ["exists already"]),
    ]
    for named, options, kind, parts in cases:
        with pytest.raises(kind) as error:
            insight.average_weights(list(map(str, named)), **{"output": tmp_path / "mean.ckpt", **options})
        assert all(part in str(error.value) for part in parts), str(error.value)
        assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == there
