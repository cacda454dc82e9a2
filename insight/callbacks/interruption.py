"""Ctrl-C and SIGTERM end a run cleanly: the step is finished, the state saved, the exit code right."""

from __future__ import annotations

import contextlib
import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from insight.callbacks.steps import step_completed
from insight.runtime.messages import say


class TrainingInterrupted(SystemExit):
    """Ends the process with the exit code of its signal once everything worth keeping has been saved.

    It derives from ``SystemExit``, so a program that does not care exits quietly with the right code
    (130 for SIGINT, 143 for SIGTERM), and no ``except Exception`` on the way swallows it.

    Args:
        signal_number: The signal that asked for the end.
        step: Optimizer steps finished, 0 where nothing was being trained.
        checkpoint: The newest checkpoint to go on from, "" if there is none.
        aborted: The signal came twice: the last step was not finished.

    Attributes:
        code: Exit code, 128 + signal number.
    """

    def __init__(
        self, signal_number: int, step: int = 0, checkpoint: str = "", aborted: bool = False
    ) -> None:
        self.signal_number = signal_number
        self.step = step
        self.checkpoint = checkpoint
        self.aborted = aborted
        super().__init__(128 + signal_number)

    def __str__(self) -> str:
        how = "aborted" if self.aborted else "interrupted"
        return f"{how} by {signal.Signals(self.signal_number).name} at step {self.step}"


class GracefulInterrupt(Callback):
    """Ctrl-C: finish the optimizer step, save ``last.ckpt``, stop with exit code 130. SIGTERM: the same, 143.

    A validation that has begun is finished first, so that a resumed run reports the same metrics as one
    that was never interrupted. A second Ctrl-C aborts at once and keeps the checkpoint there is; a third
    is left to the operating system. RunCheckpoint does the saving.

    Attributes:
        requested: The signal number that asked for the end, or ``None``.
        stopping: The run is at a point it can be resumed from and ends before its next step.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self.stopping = False
        self._trainer: Trainer | None = None
        self._handlers: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.requested, self.stopping, self._trainer = None, False, trainer

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._unlisten()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._unlisten()

    # Lightning puts its own SIGTERM handler in place just before these events; ours has to come after it.
    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._end_if(self.stopping, trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.stopping = self._everyone_agrees(trainer) and step_completed(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        # Inside fit the validation is finished first; alone or as a sanity check there is nothing to save.
        self._end_if(not _is_training(trainer), trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _is_training(trainer):
            self.stopping = self._everyone_agrees(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_if(self.stopping, trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stopping = self._everyone_agrees(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_if(self.stopping or trainer.world_size == 1, trainer)

    def on_test_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self._end_if(True, trainer)

    def on_predict_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self._end_if(True, trainer)

    def _everyone_agrees(self, trainer: Trainer) -> bool:
        """Whether any process was asked to end; all get the same answer."""
        asked = self.requested is not None
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
            self.requested = (self.requested or signal.SIGINT) if asked else None
        return asked

    def _end_if(self, condition: bool, trainer: Trainer) -> None:
        if condition and self.requested is not None:
            raise self._ending(self.requested, aborted=False)

    def _ending(self, number: int, aborted: bool) -> TrainingInterrupted:
        trainer = self._trainer
        step = trainer.global_step if trainer else 0
        checkpoint = getattr(trainer.checkpoint_callback, "last_model_path", "") if trainer else ""
        return TrainingInterrupted(number, step, str(checkpoint), aborted)

    def _listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python delivers signals to the main thread only
        for number in (signal.SIGINT, signal.SIGTERM):
            current = signal.getsignal(number)
            if current != self._handle:
                self._handlers.setdefault(number, current)
                signal.signal(number, self._handle)

    def _unlisten(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._handlers.items():
                if signal.getsignal(number) == self._handle:
                    signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            self._handlers = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested is None:
            self.requested = number
            name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            with contextlib.suppress(RuntimeError):  # the signal came while another line was being printed
                say(f"{name}: finishing this step, then saving and stopping (again to abort at once)")
            return
        signal.signal(number, signal.SIG_DFL)
        raise self._ending(number, aborted=True)


def _is_training(trainer: Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking
