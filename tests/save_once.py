"""A callback that saves at one moment of a training, for tests of what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback


class SaveOnce(Callback):
    """Saves once: after a step, or after the validation that follows it."""

    def __init__(self, path: Path, step: int, after_validation: bool) -> None:
        self.path, self.step, self.after_validation = path, step, after_validation

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step and not self.after_validation:
            trainer.save_checkpoint(self.path)

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        if trainer.global_step == self.step and self.after_validation:
            trainer.save_checkpoint(self.path)
