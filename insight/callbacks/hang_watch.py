"""Ends a run of several processes when one of them hangs, and says which and where."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from insight.callbacks.trainer_parts import run_folder_of
from insight.reporting import update_run_info
from insight.runtime.launching.meeting import Meeting
from insight.runtime.launching.rank_watch import RankWatch


class HangWatch(Callback):
    """Tells the watch of the run what this process has finished and what it does next.

    It watches from the start of training to its end, validations included; the final test, report and
    quantization are the first process's business and take as long as they take.

    Args:
        meeting: Where the processes of the run leave messages.
        seconds: Without progress until the run is ended.
        kill_children: Ends processes that this one has started, also those that do not answer.
    """

    def __init__(self, meeting: Meeting, seconds: float, kill_children: Callable[[], None]) -> None:
        self._meeting = meeting
        self._seconds = seconds
        self._kill_children = kill_children
        self._watch: RankWatch | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder_of(trainer)

        def write_down(message: str) -> None:
            update_run_info(folder.info_path, notes=(message,))

        self._watch = RankWatch(self._meeting, self._seconds, folder.path, write_down, self._kill_children)
        self._watch.start()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._progress(f"finished step {trainer.global_step + 1:,}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._progress(f"begun step {trainer.global_step + 1:,}")

    def on_validation_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self._progress(f"finished the validation after step {trainer.global_step:,}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._progress(f"begun step {trainer.global_step + 1:,}")

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._progress(f"saved step {trainer.global_step:,}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._progress("ended training")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stop()

    def _progress(self, doing: str) -> None:
        if self._watch is not None:
            self._watch.progress(doing)

    def _stop(self) -> None:
        if self._watch is not None:
            with contextlib.suppress(RuntimeError):
                self._watch.stop()
            self._watch = None
