"""Frozen parameters: no gradient, no optimizer state, no update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tiny_training import make_module, train
from torch import nn

from insight.models import DecoderConfig
from insight.runtime.errors import ConfigError
from insight.training.optimizers.base import freeze_parameters

FROZEN = ("embedding", "blocks.0.*")


class Gradients(pl.Callback):
    """Which parameters ever had a gradient, and the weights before the first step."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.before: dict[str, torch.Tensor] = {}

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.before = {name: p.detach().clone() for name, p in module.named_parameters()}

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        self.names |= {name for name, p in module.named_parameters() if p.grad is not None}


def is_frozen(name: str) -> bool:
    return name.startswith(("network.embedding.", "network.blocks.0."))


@pytest.mark.parametrize("patterns", [FROZEN, ()])
def test_frozen_parameters_stay_and_cost_nothing(tmp_path: Path, patterns: tuple[str, ...]) -> None:
    """The twin without patterns shows that the same parameters move otherwise."""
    watch = Gradients()
    _, module, trainer = train(tmp_path, 3, freeze=patterns, callbacks=(watch,))
    moved = {name for name, p in module.named_parameters() if not torch.equal(p, watch.before[name])}
    trained = {name for name in watch.before if not (patterns and is_frozen(name))}
    assert 0 < len(trained) <= len(watch.before)
    assert moved == watch.names == trained
    names = {p: name for name, p in module.named_parameters()}
    assert {names[p] for p in trainer.optimizers[0].state} == trained


def network() -> nn.Module:
    return DecoderConfig(hidden_size=32, num_layers=2).build(64)


@pytest.mark.parametrize(
    ("pattern", "frozen"),
    [
        ("embedding", {"embedding.weight"}),
        ("head.weight", {"head.weight"}),
        ("blocks.[01].attention*", None),
        ("norm", {"norm.weight"}),
    ],
)
def test_patterns_name_parameters_and_modules(pattern: str, frozen: set[str] | None) -> None:
    net = network()
    freeze_parameters(net, [pattern])
    still = {name for name, p in net.named_parameters() if not p.requires_grad}
    expected = {name for name, _ in net.named_parameters() if ".attention" in name}
    assert still == (expected if frozen is None else frozen)
    assert still


@pytest.mark.parametrize(
    ("pattern", "remedy"),
    [
        ("embeding", "did you mean 'embedding'?"),
        ("block.0.*", "did you mean 'blocks.0'?"),
        ("decoder", "names begin with embedding, blocks, norm, head"),
    ],
)
def test_an_unknown_pattern_is_refused_with_the_nearest_name(pattern: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        freeze_parameters(network(), ["embedding", pattern])
    assert caught.value.value == pattern
    assert caught.value.remedy == remedy


def test_freezing_everything_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        freeze_parameters(network(), ["*"])
    assert (caught.value.option, caught.value.value) == ("model.freeze", "*")


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_label_smoothing_has_its_bounds(value: float) -> None:
    with pytest.raises(ConfigError) as caught:
        make_module(label_smoothing=value)
    assert (caught.value.option, caught.value.value) == ("label_smoothing", value)
