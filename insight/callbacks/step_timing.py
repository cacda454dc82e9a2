"""Keeps a clock of optimizer steps running from the Trainer's events."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from insight.callbacks.step_clock import StepClock
from insight.callbacks.steps import num_targets, step_completed
from insight.training.parallel import num_replicas


class StepTiming(Callback):
    """Base of the callbacks that need to know how long a step takes."""

    clock_window = 100

    def __init__(self) -> None:
        super().__init__()
        self.clock = StepClock(self.clock_window)
        self._between_steps = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock = StepClock(self.clock_window)
        self._between_steps = True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._between_steps:
            self.clock.start_step()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.clock.count_tokens(num_targets(batch) * num_replicas(trainer))
        self._between_steps = step_completed(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock.pause_for("validation")

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.clock.pause_for("save")
