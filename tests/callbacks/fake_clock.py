"""A clock that only moves when a test moves it, and a workload that moves it as training would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback


@dataclass
class FakeClock:
    """Seconds that pass where the test says so."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Workload(Callback):
    """Lets time pass as training would: so much a batch, a validation and a save."""

    def __init__(
        self,
        clock: FakeClock,
        batch: float | Callable[[int], float] = 0.1,
        validation: float = 0.0,
        save: float = 0.0,
    ) -> None:
        self.clock, self.batch, self.validation, self.save = clock, batch, validation, save

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.clock.seconds += self.batch(trainer.global_step) if callable(self.batch) else self.batch

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        self.clock.seconds += 0.0 if trainer.sanity_checking else self.validation

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: Any) -> None:
        self.clock.seconds += self.save
