"""Any importable optimizer: groups by role, exact resume, and the modes of schedule-free ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import SaveAt
from tiny_training import LossRecorder, same_weights, train
from torch import nn

from insight.models import DecoderConfig, parameter_role
from insight.runtime.errors import CheckpointError, ConfigError
from insight.training import AdamW, AnyOptimizer, MuonAdamW
from insight.training.optimizers import parameter_groups, prepare_for_resuming

N = 6


class Lion(torch.optim.Optimizer):
    """As in a user's own package (Chen et al. 2023, arXiv 2302.06675)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.99,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(params, {"lr": lr, "beta1": beta1, "beta2": beta2, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum, gradient = state["momentum"], parameter.grad
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(momentum.lerp(gradient, 1 - group["beta1"]).sign_(), alpha=-group["lr"])
                momentum.lerp_(gradient, 1 - group["beta2"])
        return loss


def network() -> nn.Module:
    torch.manual_seed(0)
    return DecoderConfig(hidden_size=32, num_layers=2).build(64)


FACTORIES = {
    "RAdam": functools.partial(torch.optim.RAdam, lr=1e-3, weight_decay=0.1),
    "SGD": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "Adafactor": functools.partial(torch.optim.Adafactor, lr=1e-2),
    "Lion": functools.partial(Lion, lr=1e-3),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_groups_have_roles_rates_and_no_decay_where_it_harms(name: str) -> None:
    net = network()
    groups = AnyOptimizer(FACTORIES[name]).build(net).param_groups
    assert {group["role"] for group in groups} == {"embedding", "hidden", "head", "vector"}
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))
    for group in groups:
        assert group["initial_lr"] == group["lr"] == FACTORIES[name].keywords["lr"]
        if group["role"] in ("embedding", "vector"):
            assert group["weight_decay"] == 0


def test_own_rates_of_embedding_and_layers() -> None:
    built = AnyOptimizer(FACTORIES["Lion"], embedding_learning_rate=0.5, layer_decay=0.1).build(network())
    rates = {(group["role"], group["initial_lr"]) for group in built.param_groups}
    assert ("head", 1e-3) in rates
    assert ("embedding", pytest.approx(0.5 * 0.1**3)) in [*rates]
    assert sorted(rate for role, rate in rates if role == "hidden") == pytest.approx([1e-5, 1e-4])


@pytest.mark.parametrize("name", FACTORIES)
def test_resumed_run_is_bit_for_bit_the_uninterrupted_one(tmp_path: Path, name: str) -> None:
    config = AnyOptimizer(FACTORIES[name])
    whole, module, path = _whole(tmp_path, config)
    resumed, again, trainer = train(tmp_path, 2 * N, optimizer=config, dropout=0.1, ckpt_path=str(path))
    assert trainer.global_step == 2 * N
    assert len(resumed.losses) == N, "a resume that trains nothing proves nothing"
    assert resumed.losses == whole.losses[N:]
    assert resumed.rates == whole.rates[N:]
    assert same_weights(module, again)


def test_an_optimizer_without_its_state_would_be_noticed(tmp_path: Path) -> None:
    config = AnyOptimizer(FACTORIES["Lion"])
    _, module, path = _whole(tmp_path, config)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["optimizer_states"][0]["state"] = {}
    torch.save(checkpoint, path)
    _, again, _ = train(tmp_path, 2 * N, optimizer=config, dropout=0.1, ckpt_path=str(path))
    assert not same_weights(module, again)


def _whole(folder: Path, config: AnyOptimizer) -> tuple[LossRecorder, nn.Module, Path]:
    """2 N steps without a break, with a checkpoint of the N-th."""
    path = folder / "half.ckpt"
    recorder, module, _ = train(folder, 2 * N, optimizer=config, dropout=0.1, callbacks=(SaveAt(N, path),))
    return recorder, module, path


@pytest.mark.parametrize(
    ("factory", "numbers"),
    [
        (torch.optim.AdamW, 2),
        (functools.partial(torch.optim.SGD, lr=0.1), 0),
        (functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9), 1),
        (Lion, 1),
    ],
)
def test_numbers_kept_are_counted(factory: Callable[..., Any], numbers: int) -> None:
    assert AnyOptimizer(factory).numbers_kept("hidden") == numbers


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (torch.optim.LBFGS, "LBFGS: .*parameter groups"),
        (torch.optim.Muon, "Muon: .*2D"),
        (functools.partial(torch.optim.SGD, lr=-1.0), "SGD: Invalid learning rate"),
    ],
)
def test_an_optimizer_that_cannot_is_named(factory: Callable[..., Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        AnyOptimizer(factory).build(network())


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (MuonAdamW(precision="float32"), "of another optimizer"),
        (AdamW(layer_decay=0.5), "other groups of parameters"),
    ],
)
def test_the_state_of_another_optimizer_is_refused(other: Any, said: str) -> None:
    state = AdamW().build(network()).state_dict()
    with pytest.raises(CheckpointError, match=said):
        prepare_for_resuming(other.build(network())).load_state_dict(state)
    prepare_for_resuming(AdamW(learning_rate=1.0).build(network())).load_state_dict(state)


@pytest.mark.parametrize("guarded", [True, False])
def test_a_state_does_not_change_which_kernel_runs(guarded: bool) -> None:
    """Under tensor parallelism AdamW is not fused; as torch does it, it would stay so on one process."""
    saved = prepare_for_resuming(AdamW().build(network())).state_dict()
    for group in saved["param_groups"]:
        group["fused"], group["lr"] = False, 0.5
    optimizer = AdamW().build(network())
    if guarded:
        prepare_for_resuming(optimizer)
    optimizer.load_state_dict(saved)
    assert {group["fused"] for group in optimizer.param_groups} == {guarded}
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}


@pytest.mark.parametrize("config", [AdamW, MuonAdamW])
def test_rates_fall_by_layer(config: Any) -> None:
    """Head and last norm have the full rate, then each block, then the embedding: half as much each time."""
    net = network()
    options = {"precision": "float32"} if config is MuonAdamW else {}
    plain, built = config(**options).build(net), config(layer_decay=0.5, **options).build(net)
    full = {parameter: group["initial_lr"] for group in plain.param_groups for parameter in group["params"]}
    names = {parameter: name for name, parameter in net.named_parameters()}
    heights = {"blocks.1.": 1, "blocks.0.": 2, "embedding": 3}
    seen = 0
    for group in built.param_groups:
        for parameter in group["params"]:
            height = next((h for start, h in heights.items() if names[parameter].startswith(start)), 0)
            assert group["initial_lr"] == pytest.approx(full[parameter] * 0.5**height), names[parameter]
            seen += 1
    assert seen == len(names)
    rates = [group["initial_lr"] for group in built.param_groups if group["role"] == "hidden"]
    assert rates == sorted(rates, reverse=True)  # the rate that is logged is that of the topmost


def test_groups_are_those_of_the_roles() -> None:
    net = network()
    roles = parameter_role(net)
    for group in parameter_groups(net):
        assert {roles[name] for name in group.parameters} == {group.role}
    assert len(parameter_groups(net)) == len(set(roles.values()))


@pytest.mark.parametrize("value", [0.0, -1.0, 1.5, float("nan")])
def test_layer_decay_has_its_bounds(value: float) -> None:
    for make in (lambda: AdamW(layer_decay=value), lambda: AnyOptimizer(Lion, layer_decay=value)):
        with pytest.raises(ConfigError) as caught:
            make()
        assert caught.value.option == "layer_decay"
