"""Holds the learning rate's schedule against the length of the run."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from insight.callbacks.time_budget import TimeBudget
from insight.callbacks.trainer_parts import callbacks_of
from insight.training import ScheduleConfig


class ScheduleCheck(Callback):
    """Refuses, before the first step, a schedule whose phases are longer than the run.

    A run under a time budget has no length yet and is not judged.
    """

    def __init__(self) -> None:
        self._is_done = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._is_done = False

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._is_done or callbacks_of(trainer, TimeBudget):
            return
        self._is_done = True
        # Here and not earlier: only now the module knows how long an epoch and how large a step is.
        schedule = getattr(pl_module, "schedule", None)
        num_steps = getattr(pl_module, "num_planned_steps", None)
        if isinstance(schedule, ScheduleConfig) and isinstance(num_steps, int):
            schedule.check_fits(num_steps)
