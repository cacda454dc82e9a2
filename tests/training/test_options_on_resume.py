"""An optimizer option that a resumed run sets anew is used; all others go on as they were."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import SaveAt
from tiny_training import LossRecorder, train
from torch import nn

from insight.models import DecoderConfig
from insight.runtime.errors import ConfigError
from insight.training import (
    AdamW,
    AnyOptimizer,
    DurationBudget,
    Guard,
    LanguageModelingModule,
    MuonAdamW,
    Patience,
    SpikeDetector,
    WarmupStableDecay,
)
from insight.training.optimizers import OptimizerConfig, prepare_for_resuming
from insight.training.parallel import FSDP2Strategy


def network() -> nn.Module:
    torch.manual_seed(0)
    return DecoderConfig(hidden_size=32, num_layers=1).build(64)


def any_of(kind: Any, **options: Any) -> AnyOptimizer:
    return AnyOptimizer(functools.partial(kind, **options))


SGD = torch.optim.SGD


@pytest.mark.parametrize(
    ("before", "now", "option", "value"),
    [
        (AdamW(learning_rate=0.1), AdamW(learning_rate=0.001), "initial_lr", 0.001),
        (AdamW(weight_decay=0.1), AdamW(weight_decay=0.0), "weight_decay", 0.0),
        (AdamW(beta2=0.95), AdamW(beta2=0.99), "betas", (0.9, 0.99)),
        (AdamW(eps=1e-8), AdamW(eps=1e-6), "eps", 1e-6),
        (MuonAdamW(learning_rate=0.1), MuonAdamW(learning_rate=0.02), "initial_lr", 0.02),
        (MuonAdamW(momentum=0.9), MuonAdamW(momentum=0.8), "momentum", 0.8),
        (MuonAdamW(num_iterations=5), MuonAdamW(num_iterations=3), "num_iterations", 3),
        (MuonAdamW(precision="bfloat16"), MuonAdamW(precision="float32"), "dtype", "float32"),
        (any_of(SGD, lr=0.1), any_of(SGD, lr=0.001), "initial_lr", 0.001),
        (any_of(SGD, lr=0.1, momentum=0.9), any_of(SGD, lr=0.1, momentum=0.5), "momentum", 0.5),
        (any_of(torch.optim.Adam, betas=(0.9, 0.95)), any_of(torch.optim.Adam), "betas", (0.9, 0.999)),
    ],
)
@pytest.mark.parametrize("says_options", [True, False], ids=["new checkpoint", "old checkpoint"])
def test_an_option_that_is_set_anew_is_used(
    before: OptimizerConfig, now: OptimizerConfig, option: str, value: Any, says_options: bool
) -> None:
    state = prepare_for_resuming(before.build(network())).state_dict()
    if not says_options:
        for group in state["param_groups"]:
            del group["as_configured"]
            group.pop("precision", None)
        if option == "dtype":
            pytest.skip("an old checkpoint does not say whether its type was measured")
    optimizer = prepare_for_resuming(now.build(network()))
    optimizer.load_state_dict(state)
    groups = [group for group in optimizer.param_groups if group["role"] == "hidden"]
    assert {group[option] for group in groups} == {value}
    assert {group[option] for group in groups} != {
        group[option] for group in state["param_groups"] if group["role"] == "hidden"
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e308, True, "fast"])
@pytest.mark.parametrize(
    ("build", "option"),
    [
        (lambda value: AdamW(learning_rate=value), "learning_rate"),
        (lambda value: AdamW(embedding_learning_rate=value), "embedding_learning_rate"),
        (lambda value: AdamW(weight_decay=value), "weight_decay"),
        (lambda value: AdamW(beta1=value), "beta1"),
        (lambda value: AdamW(eps=value), "eps"),
        (lambda value: AdamW(layer_decay=value), "layer_decay"),
        (lambda value: MuonAdamW(learning_rate=value), "learning_rate"),
        (lambda value: MuonAdamW(adam_learning_rate=value), "adam_learning_rate"),
        (lambda value: MuonAdamW(momentum=value), "momentum"),
        (lambda value: MuonAdamW(num_iterations=value), "num_iterations"),
        (lambda value: LanguageModelingModule(z_loss=value), "z_loss"),
        (lambda value: LanguageModelingModule(label_smoothing=value), "label_smoothing"),
        (lambda value: Guard(num_in_a_row=value), "guard.num_in_a_row"),
        (lambda value: SpikeDetector(threshold=value), "threshold"),
        (lambda value: WarmupStableDecay(final_share=value), "final_share"),
        (lambda value: WarmupStableDecay(decay_share=value), "decay_share"),
        (lambda value: Patience(min_delta=value), "min_delta"),
        (lambda value: DurationBudget(value), "hours"),
        (lambda value: FSDP2Strategy(tensor_parallel_size=value), "tensor_parallel_size"),
    ],
)
def test_numbers_that_are_none(build: Callable[[Any], Any], option: str, value: Any) -> None:
    if value == 1e308 and option in ("threshold", "min_delta", "hours"):
        pytest.skip("it is a number that no run reaches")
    with pytest.raises(ConfigError) as caught:
        build(value)
    assert caught.value.option == option
    assert str(caught.value.value) == str(value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "options", [{"lr": float("nan")}, {"lr": 1e308}, {"lr": 0.1, "momentum": float("inf")}]
)
def test_numbers_that_torch_lets_pass(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"model\.optimizer SGD"):
        any_of(SGD, **options).build(network())


def test_without_new_options_everything_goes_on() -> None:
    """Also what an optimizer counts in its groups, and the type that another machine would not choose."""
    state = prepare_for_resuming(MuonAdamW().build(network())).state_dict()
    changed = copy.deepcopy(state)
    for group in changed["param_groups"]:
        group["lr"] = 0.123
        if "dtype" in group:
            group["dtype"] = "float16"
    optimizer = prepare_for_resuming(MuonAdamW().build(network()))
    optimizer.load_state_dict(changed)
    assert optimizer.state_dict()["param_groups"] == changed["param_groups"]


@pytest.mark.parametrize(
    ("before", "now", "ratio"),
    [
        (any_of(SGD, lr=0.1), any_of(SGD, lr=0.1), 1.0),
        (any_of(SGD, lr=0.1), any_of(SGD, lr=0.001), 0.01),
        (AdamW(learning_rate=0.1, weight_decay=0.0), AdamW(learning_rate=0.001, weight_decay=0.0), 0.01),
    ],
)
def test_the_update_after_a_resume(
    tmp_path: Path, before: OptimizerConfig, now: OptimizerConfig, ratio: float
) -> None:
    """A new rate changes the next update by its ratio, and is logged and saved."""
    saved = tmp_path / "saved.ckpt"
    _, begun, _ = train(tmp_path, 2, optimizer=before, callbacks=(SaveAt(2, saved),))
    start = {name: value.clone() for name, value in begun.network.state_dict().items()}

    def continued(optimizer: OptimizerConfig) -> tuple[dict[str, torch.Tensor], LossRecorder, Any]:
        recorder, module, trainer = train(tmp_path, 3, optimizer=optimizer, ckpt_path=str(saved))
        moved = {name: value - start[name] for name, value in module.network.state_dict().items()}
        return moved, recorder, trainer

    (as_before, old, _), (changed, new, trainer) = continued(before), continued(now)
    for name, update in as_before.items():
        torch.testing.assert_close(changed[name], ratio * update, rtol=1e-3, atol=1e-7)
    assert new.rates[-1] == pytest.approx(ratio * old.rates[-1])
    assert trainer.optimizers[0].state_dict()["param_groups"][0]["initial_lr"] == pytest.approx(0.1 * ratio)
