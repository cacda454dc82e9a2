"""An optimizer option that a resumed run sets anew is used; all others go on as they were."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import SaveAt
from tiny_training import LossRecorder, train
from torch import nn

from insight.models import DecoderConfig
from insight.training import AdamW, AnyOptimizer, MuonAdamW
from insight.training.optimizers import OptimizerConfig, prepare_for_resuming


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
