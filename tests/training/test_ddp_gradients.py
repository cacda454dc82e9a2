"""``strategy: ddp`` sums gradients where they lie, in a real process group of one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from tiny_training import LossRecorder, same_weights, train


class Storages(pl.Callback):
    """How many pieces of memory hold the gradients of how many parameters."""

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        self.num_gradients = len(gradients)
        self.num_storages = len({gradient.untyped_storage().data_ptr() for gradient in gradients})


@pytest.fixture
def one_process() -> Iterator[None]:
    """Leaves no process group behind."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def trained(folder: Path, strategy: Any) -> tuple[LossRecorder, Any, Storages]:
    storages = Storages()
    options = {"strategy": strategy, "devices": 1, "accumulate_grad_batches": 2}
    recorder, module, _ = train(folder, 4, callbacks=(storages,), trainer_options=options)
    return recorder, module, storages


def test_gradients_are_views_of_the_buckets(tmp_path: Path, one_process: None) -> None:
    losses, module, storages = trained(tmp_path, "ddp")
    assert storages.num_storages < storages.num_gradients
    plain_losses, plain_module, plain = trained(tmp_path, DDPStrategy())
    assert plain.num_storages == plain.num_gradients == storages.num_gradients  # as it would be without
    assert losses.losses == plain_losses.losses
    assert same_weights(module, plain_module)
