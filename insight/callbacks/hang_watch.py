"""Ends a run of several processes when one of them hangs, and reports which rank hangs and where."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from insight.callbacks.trainer_parts import run_folder_of
from insight.reporting import update_run_info
from insight.runtime.launching.rank_watch import RankWatch


class HangWatch(Callback):
    """Reports the progress of this process to the watch of the run.

    The watch is active from the start to the end of training, validations included. The work after training
    (final test, report, quantization), which the first process does alone, has no time limit.

    Args:
        watch: The watch of the run.
        seconds: Time without progress in any process after which the run is ended.
    """

    def __init__(self, watch: RankWatch, seconds: float) -> None:
        self._watch = watch
        self._seconds = seconds

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder_of(trainer)

        def write_down(message: str) -> None:
            update_run_info(folder.info_path, notes=(message,))

        self._watch.begin_training(self._seconds, folder.path, write_down)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._watch.progress(f"finished step {trainer.global_step + 1:,}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._watch.progress(f"begun step {trainer.global_step + 1:,}")

    def on_validation_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self._watch.progress(f"finished the validation after step {trainer.global_step:,}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watch.progress(f"begun step {trainer.global_step + 1:,}")

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._watch.progress(f"saved step {trainer.global_step:,}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watch.end_training()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._watch.end_training()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._watch.end_training()
