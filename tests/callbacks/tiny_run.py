"""A module and a data module that train in milliseconds, with every trait that resuming needs.

Dropout draws from the global generator, the loader can start in the middle of an epoch, and the metrics
carry the names of the real module.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import nn

from insight.data.loaders import LanguageModelBatch
from insight.runtime.seeding import capture_random_state, restore_random_state

VOCABULARY = 32


class TinyNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(16, VOCABULARY)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.embedding(input_ids)))

    def flops_per_token(self, sequence_length: int) -> int:
        return 6 * 16 * VOCABULARY


class TinySchedule:
    """Warm-up over 4 steps, stable, linear decay over the last share."""

    def __init__(self, decay_share: float | None = 0.5) -> None:
        self.decay_share = 1.0 if decay_share is None else decay_share

    def multiplier(self, step: int, num_steps: int) -> float:
        left = (num_steps - step) / max(1, num_steps * self.decay_share)
        return min(1.0, (step + 1) / 4, max(0.0, left))

    def settled_steps(self, num_steps: int) -> int:
        return int(num_steps * (1 - self.decay_share))


class TinyModule(LightningModule):
    def __init__(self, schedule: TinySchedule | None = None) -> None:
        super().__init__()
        self.network = TinyNetwork()
        self.schedule = schedule or TinySchedule()
        self.num_planned_steps = 0
        self.learning_rates: list[float] = []
        self._random_state: dict[str, Any] | None = None

    def on_fit_start(self) -> None:
        if self.trainer.max_steps > 0:
            self.num_planned_steps = self.trainer.max_steps

    def on_train_start(self) -> None:
        if self._random_state is not None:
            restore_random_state(self._random_state)

    def logits(self, batch: LanguageModelBatch) -> torch.Tensor:
        scores: torch.Tensor = self.network(batch.input_ids)
        return scores

    def training_step(self, batch: LanguageModelBatch, batch_idx: int) -> torch.Tensor:
        logits = self.logits(batch)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        self.log("train/loss", loss, batch_size=1)
        self.trainer.datamodule.advance(len(batch.input_ids))
        return loss

    def validation_step(self, batch: LanguageModelBatch, batch_idx: int) -> None:
        loss = nn.functional.cross_entropy(self.logits(batch).flatten(0, 1), batch.targets.flatten())
        self.log("validation/loss", loss, on_epoch=True, batch_size=len(batch.input_ids))
        self.log("validation/bits_per_byte", loss / 0.69, on_epoch=True, batch_size=len(batch.input_ids))

    def test_step(self, batch: LanguageModelBatch, batch_idx: int) -> None:
        loss = nn.functional.cross_entropy(self.logits(batch).flatten(0, 1), batch.targets.flatten())
        self.log("test/bits_per_byte", loss / 0.69, on_epoch=True, batch_size=len(batch.input_ids))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.05)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        rate = 0.05 * self.schedule.multiplier(self.trainer.global_step, self.num_planned_steps or 1000)
        self.learning_rates.append(rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["insight"] = {"random_state": capture_random_state()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._random_state = checkpoint["insight"]["random_state"]


class TinyLoader:
    """Batches of an endless pattern; starts where the data module's cursor is."""

    def __init__(self, num_batches: int, start: int, batch_size: int, seed: int) -> None:
        self.num_batches, self.start, self.batch_size, self.seed = num_batches, start, batch_size, seed

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[LanguageModelBatch]:
        start, self.start = self.start, 0  # the next epoch begins at its beginning
        for index in range(start, self.num_batches):
            generator = torch.Generator().manual_seed(1000 * self.seed + index)
            ids = torch.randint(VOCABULARY, (self.batch_size, 1), generator=generator) + torch.arange(9)
            ids = ids % VOCABULARY
            yield LanguageModelBatch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The data module owns the position."""


class TinyData(LightningDataModule):
    batch_size = 4

    def __init__(self, num_batches: int = 20, num_validation_batches: int = 3) -> None:
        super().__init__()
        self.num_batches = num_batches
        self.num_validation_batches = num_validation_batches
        self.consumed = 0

    def advance(self, num_samples: int) -> None:
        self.consumed += num_samples

    def train_dataloader(self) -> TinyLoader:
        start = self.consumed // self.batch_size % self.num_batches
        return TinyLoader(self.num_batches, start, self.batch_size, seed=0)

    def val_dataloader(self) -> TinyLoader:
        return TinyLoader(self.num_validation_batches, 0, self.batch_size, seed=1)

    def test_dataloader(self) -> TinyLoader:
        return TinyLoader(self.num_validation_batches, 0, self.batch_size, seed=2)

    def summary(self) -> dict[str, Any]:
        return {"train": {"documents": 1}}

    def state_dict(self) -> dict[str, Any]:
        return {"num_samples_consumed": self.consumed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.consumed = state_dict["num_samples_consumed"]


class StopAt(Callback):
    """A crash right before step ``step`` begins."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError("stopped")


def tiny_trainer(folder: Path, callbacks: list[Callback] | None = None, **options: Any) -> Trainer:
    """A Trainer as the command line sets it up: the run folder is ``default_root_dir``."""
    settings: dict[str, Any] = {
        "max_steps": 30,
        "max_epochs": -1,
        "val_check_interval": 10,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any("Checkpoint" in type(callback).__name__ for callback in callbacks or []),
        "log_every_n_steps": 1,
        "accelerator": "cpu",
        "devices": 1,
    }
    return Trainer(default_root_dir=folder, callbacks=callbacks or [], **(settings | options))


def tiny_fit(
    folder: Path, callbacks: list[Callback] | None = None, checkpoint: Path | None = None, **options: Any
) -> tuple[Trainer, TinyModule]:
    """Train from a fixed seed."""
    torch.manual_seed(7)
    module = options.pop("module", None) or TinyModule(options.pop("schedule", None))
    data = options.pop("data", None) or TinyData()
    trainer = tiny_trainer(folder, callbacks, **options)
    trainer.fit(module, datamodule=data, ckpt_path=None if checkpoint is None else str(checkpoint))
    return trainer, module


def weights(module: LightningModule) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}
