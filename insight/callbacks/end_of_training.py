"""Why training ends where the configuration leaves it to be guessed, and no training without data."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from insight.runtime.errors import DataError
from insight.runtime.messages import say

_REMEDY = "give more text, or a smaller data.batch_size or data.sequence_length"


class EndOfTraining(Callback):
    """Ends a run whose data gives nothing, and says why another one ends early or at once.

    Lightning finishes without a word when the loader is empty, when a resumed run is complete, and when
    ``max_epochs`` comes before ``max_steps``; a loader that promises batches and gives none keeps it
    beginning epochs for ever.
    """

    def __init__(self) -> None:
        self._num_batches = 0
        self._num_empty_epochs = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._num_batches = self._num_empty_epochs = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epochs, batches = trainer.max_epochs, trainer.num_training_batches
        if not epochs or epochs < 0 or trainer.max_steps <= 0 or not math.isfinite(batches):
            return
        steps = epochs * math.ceil(batches / trainer.accumulate_grad_batches)
        if steps < trainer.max_steps:
            say(
                f"trainer.max_epochs={epochs} ends training after {steps:,} steps, before "
                f"trainer.max_steps={trainer.max_steps:,}"
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._num_batches += 1
        self._num_empty_epochs = -1  # this one is none

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._num_empty_epochs += 1
        # One may be empty: that of a run resumed at its end.
        if self._num_empty_epochs > 1:
            raise DataError(
                f"the loader promises {trainer.num_training_batches} batches an epoch and gives none",
                "look at the data module",
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._num_batches:
            return
        for option in ("limit_train_batches", "max_steps", "max_epochs"):
            if getattr(trainer, option) == 0:
                say(f"trainer.{option}=0: nothing was trained")
                return
        if trainer.global_step == 0:
            raise DataError("the training data gives no batch, so nothing was trained", _REMEDY)
        say(
            f"nothing is left to train: step {trainer.global_step:,} was the last one; raise "
            "trainer.max_steps or trainer.max_epochs to go on"
        )
