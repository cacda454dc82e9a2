"""A step with fewer batches than `accumulate_grad_batches` takes the mean over its own tokens."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tiny_training import make_data, make_module, make_trainer
from torch.nn import functional

from insight.runtime.seeding import seed_everything
from insight.training import AdamW
from insight.training.step import AccumulationWindow

NUM_BATCHES, ACCUMULATION = 5, 3


class KeepsLastWindow(pl.Callback):
    """The network before the last step, and the batches of that step."""

    def __init__(self) -> None:
        self.network: Any = None
        self.batches: list[Any] = []
        self.num_steps = 0

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        batch.targets[0, batch_idx:] = -100  # no two batches have the same number of tokens
        if batch_idx == ACCUMULATION:
            self.network = copy.deepcopy(module.network)
        if batch_idx >= ACCUMULATION:
            self.batches.append(copy.deepcopy(batch))

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.num_steps = trainer.global_step


def last_gradients(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Of the last step: as trained with, and as plain torch computes them."""
    seed_everything(1)
    keeps = KeepsLastWindow()
    trainer = make_trainer(
        folder,
        -1,
        max_epochs=1,
        callbacks=[keeps],
        accumulate_grad_batches=ACCUMULATION,
        limit_train_batches=NUM_BATCHES,
    )
    module = make_module(optimizer=AdamW())
    trainer.fit(module, make_data(folder))
    assert keeps.num_steps == 2
    assert len(keeps.batches) == NUM_BATCHES - ACCUMULATION
    trained = {name: p.grad for name, p in module.network.named_parameters() if p.grad is not None}
    network = keeps.network
    network.zero_grad()
    losses = [
        functional.cross_entropy(
            network.logits(network(batch.input_ids)).flatten(0, 1), batch.targets.flatten(), reduction="sum"
        )
        for batch in keeps.batches
    ]
    num_valid = sum(int((batch.targets != -100).sum()) for batch in keeps.batches)
    (sum(losses) / num_valid).backward()  # type: ignore[union-attr]
    return trained, {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.allclose(first[name], second[name], rtol=1e-4, atol=1e-7) for name in first)


def test_a_short_window_is_a_mean_over_its_tokens(tmp_path: Path) -> None:
    assert same(*last_gradients(tmp_path))


def test_the_scale_of_a_full_window_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Lightning's own division by the accumulation makes of it."""
    monkeypatch.setattr(AccumulationWindow, "gradient_factor", lambda *_: torch.tensor(1.0))
    assert not same(*last_gradients(tmp_path))
