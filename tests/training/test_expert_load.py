"""A mixture of experts in training: its load becomes even, is logged, and survives a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tiny_training import make_data, make_trainer, same_weights

from insight.data import IGNORED_TARGET
from insight.models import (
    BalanceBias,
    BalanceLoss,
    DecoderConfig,
    GroupedQueryAttention,
    MixtureOfExperts,
    Router,
    RouterBalance,
    SwiGLU,
    ZeroOutputInitialization,
    muon_splits,
    parameter_role,
)
from insight.runtime.seeding import seed_everything
from insight.training import AdamW, LanguageModelingModule, MuonAdamW, WarmupStableDecay


class Skewed(pl.Callback):
    """Begins with routers that favour two experts of eight, and records what is logged of the load."""

    def __init__(self, skew: float) -> None:
        self.skew = skew
        self.records: list[dict[str, float]] = []

    def on_train_start(self, trainer: Any, module: Any) -> None:
        for router in routers(module):
            with torch.no_grad():
                router.projection.bias[:2] += self.skew

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.records.append(logged)


def routers(module: Any) -> list[Router]:
    return [each for each in module.network.modules() if isinstance(each, Router)]


def network(balance: RouterBalance | None, **options: Any) -> DecoderConfig:
    mixture = MixtureOfExperts(8, 2, intermediate_size=16, router_bias=True, balance=balance)
    settings: dict[str, Any] = {
        "hidden_size": 32,
        "num_layers": 2,
        "attention": GroupedQueryAttention(num_heads=4, num_key_value_heads=2),
        "feed_forward": mixture,
        "max_sequence_length": 64,
    }
    return DecoderConfig(**(settings | options))


def train(
    folder: Path,
    balance: RouterBalance | None,
    num_steps: int = 120,
    skew: float = 0.5,
    ckpt_path: str | None = None,
    trainer_options: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Skewed, LanguageModelingModule, pl.Trainer]:
    seed_everything(1)
    module = LanguageModelingModule(
        network(balance, **options),
        optimizer=AdamW(learning_rate=0.003),
        schedule=WarmupStableDecay(warmup_steps=3),
        compile="off",
    )
    recorder = Skewed(skew)
    settings = {"log_every_n_steps": 1, "callbacks": [recorder]} | (trainer_options or {})
    trainer = make_trainer(folder, num_steps, **settings)
    trainer.fit(module, make_data(folder), ckpt_path=ckpt_path, weights_only=True)
    return recorder, module, trainer


def highest(recorder: Skewed) -> float:
    """The most used expert at the end, in multiples of an even share."""
    last = recorder.records[-10:]
    return sum(record["train/expert_load_highest"] for record in last) / len(last)


@pytest.mark.slow
@pytest.mark.parametrize("balance", [BalanceLoss(0.1), BalanceBias(0.003)], ids=["loss", "bias"])
def test_training_balances_the_experts(tmp_path: Path, balance: RouterBalance) -> None:
    """The twin without either leaves every token to the two experts that it began with."""
    balanced, module, _ = train(tmp_path, balance)
    twin, _, _ = train(tmp_path, None)
    assert balanced.records[0]["train/expert_load_highest"] > 3.5
    assert highest(balanced) < 2.5
    assert highest(twin) > 3.5
    moved = [router.choice_bias for router in routers(module)]
    assert all((bias is not None) == balance.moves_bias for bias in moved)
    first, last = balanced.records[0], balanced.records[-1]
    assert last["train/expert_load_lowest"] > first["train/expert_load_lowest"]
    assert first["train/router_balance"] > last["train/router_balance"]
    assert last["train/loss"] < first["train/loss"]


def test_empty_places_of_a_batch_are_not_counted(tmp_path: Path) -> None:
    """The second half of every row has no targets, as the empty places of packed rows have none."""

    class Halve(pl.Callback):
        counts: int = 0

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            batch.targets[:, 16:] = IGNORED_TARGET
            for router in routers(module):
                router.register_forward_hook(self.count)

        def count(self, router: Any, inputs: Any, output: Any) -> None:
            self.counts = int(router._routed.counts.sum())

    halve = Halve()
    train(tmp_path, BalanceBias(0.003), 1, trainer_options={"callbacks": [halve]})
    assert halve.counts == 4 * 16 * 2


def test_a_network_without_experts_logs_no_load(tmp_path: Path) -> None:
    recorder, _, _ = train(tmp_path, None, 2, feed_forward=SwiGLU(16))
    assert "train/loss" in recorder.records[-1]
    assert not [name for name in recorder.records[-1] if "expert" in name or "router" in name]


def test_the_loss_reaches_the_gradient_with_its_coefficient(tmp_path: Path) -> None:
    """Of one step without accumulation: gradient = that of the text + coefficient x that of the balance."""
    gradients = {}

    class Keep(pl.Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            weight: Any = routers(module)[0].projection.weight
            gradients[self.name] = weight.grad.clone()

    for name, coefficient in (("none", 1e-12), ("one", 0.01), ("three", 0.03)):
        train(tmp_path, BalanceLoss(coefficient), 1, trainer_options={"callbacks": [Keep(name)]})
    once, thrice = (gradients[name] - gradients["none"] for name in ("one", "three"))
    assert once.norm() > 1e-6
    torch.testing.assert_close(thrice, 3 * once, rtol=1e-2, atol=1e-7)


def test_counts_are_summed_over_the_micro_batches_of_a_step(tmp_path: Path) -> None:
    seen = []

    class Watch(pl.Callback):
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            window = module.step._window
            seen.append(None if window is None else int(window.expert_counts.sum()))

    options = {"accumulate_grad_batches": 3, "callbacks": [Watch()]}
    train(tmp_path, BalanceBias(0.01), 2, trainer_options=options)
    assert seen == [3 * 4 * 32 * 2 * 2] * 2  # batches, rows, tokens, experts a token, layers


def test_resuming_in_the_middle_of_a_step_moves_the_bias_alike(tmp_path: Path) -> None:
    options = {"accumulate_grad_batches": 2}
    _, whole, _ = train(tmp_path, BalanceBias(0.01), 4, trainer_options=options)

    class SaveAndStop(pl.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
            if index == 4:  # two steps and a half
                trainer.save_checkpoint(tmp_path / "half.ckpt")
                trainer.should_stop = True

    stopping = options | {"callbacks": [SaveAndStop(), Skewed(0.5)]}
    train(tmp_path, BalanceBias(0.01), 4, trainer_options=stopping)
    saved = torch.load(tmp_path / "half.ckpt", weights_only=True)
    assert saved["insight"]["open_window"]["expert_counts"].sum() == 4 * 32 * 2 * 2
    _, resumed, _ = train(
        tmp_path,
        BalanceBias(0.01),
        4,
        skew=0.0,
        ckpt_path=str(tmp_path / "half.ckpt"),
        trainer_options=options,
    )
    assert same_weights(whole.network, resumed.network)
    assert routers(resumed)[0].choice_bias is not None
    assert routers(resumed)[0].choice_bias.abs().sum() > 0  # type: ignore[union-attr]


def test_muon_orthogonalizes_every_expert_by_itself() -> None:
    torch.manual_seed(0)
    net = network(None, initialization=ZeroOutputInitialization()).build(20)
    name = "blocks.0.feed_forward.expert_gate_up.weight"
    before = {key: p.detach().clone() for key, p in net.named_parameters()}
    optimizer = MuonAdamW(learning_rate=0.02, precision="float32").build(net)
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    assert muon_splits(net)[name] == (16, 16)
    assert parameter_role(net)[name] == "hidden"
    change = (dict(net.named_parameters())[name].detach() - before[name]) / 0.02
    parts = change.unflatten(1, (2, 16)).flatten(0, 1)  # 8 experts x gate and up, each (16, 32)
    values = torch.linalg.svdvals(parts)
    assert values.min() > 0.3
    assert values.max() < 1.3
    whole = torch.linalg.svdvals(change[0])  # gate and up together are not orthogonal
    assert whole.max() > 1.3
    router = "blocks.0.feed_forward.router.projection.weight"
    moved = (dict(net.named_parameters())[router].detach() - before[router]).abs()
    # The first step of AdamW is its rate.
    torch.testing.assert_close(moved, torch.full_like(moved, 3e-3), rtol=1e-3, atol=1e-6)
