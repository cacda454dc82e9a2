"""Signals and a time limit end a run cleanly, and a process that hangs ends it with a reason."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from types import FrameType
from typing import Any

import psutil
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer

from insight.callbacks.trainer import is_training, run_folder_of
from insight.reporting import update_run_info
from insight.runtime.launching.meeting import Meeting
from insight.runtime.messages import say
from insight.runtime.numbers import require_number
from insight.training.lightning_internals import step_completed, take_over_sigterm

PREEMPTED = 128 + signal.SIGTERM
"""Exit code of a preempted run, which can be resumed from its last checkpoint: 143."""
# Stands for the time limit among the signals; nothing here sets an alarm.
TIME_LIMIT = signal.SIGALRM if hasattr(signal, "SIGALRM") else signal.SIGTERM
# SLURM sends SIGUSR1 before it ends a job (sbatch --signal=USR1@90).
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class TrainingInterrupted(SystemExit):
    """Ends the process with the exit code of its signal, after the state of the run has been saved.

    The code is 130 for SIGINT, 143 for SIGTERM, SIGUSR1 and the time limit. As a ``SystemExit`` it ends a
    program that does not handle it quietly, and no ``except Exception`` swallows it.

    Args:
        signal_number: The signal that interrupted the run; ``TIME_LIMIT`` for the time limit.
        step: Number of finished optimizer steps.
        checkpoint: The newest checkpoint to resume from, "" if there is none.
        aborted: Whether the signal came twice, so that the last step was not finished.
        after_training: Whether only the work after training was cut short.
    """

    def __init__(
        self,
        signal_number: int,
        step: int = 0,
        checkpoint: str = "",
        aborted: bool = False,
        after_training: bool = False,
    ) -> None:
        self.signal_number, self.step, self.checkpoint = signal_number, step, checkpoint
        self.aborted, self.after_training = aborted, after_training
        super().__init__(128 + signal_number if signal_number == signal.SIGINT else PREEMPTED)

    def __str__(self) -> str:
        how = "aborted" if self.aborted else "interrupted"
        when = f"after training ({self.step:,} steps)" if self.after_training else f"at step {self.step:,}"
        return f"{how} by {_name(self.signal_number)} {when}"


class GracefulInterrupt(Callback):
    """Finishes the optimizer step, saves ``last.ckpt`` and ends the process on a signal or a time limit.

    Ctrl-C ends with exit code 130; SIGTERM, SIGUSR1 and the time limit with 143, which tells a job script to
    resume later. A validation that has begun is finished first. A signal to one of several processes is
    enough: all agree after each step, and end after the same one. RunCheckpoint saves the state.

    A second Ctrl-C aborts at once and keeps the existing checkpoint; a third is left to the operating system.
    Repeated SIGTERM and SIGUSR1 are ignored, since launchers and schedulers pass them on twice.

    Args:
        time_limit: Seconds after which the run ends itself, or ``None``. Leave time before the limit of the
            job for one step, one validation and a save.
        include_startup: Count from the start of the process instead of the start of training.
    """

    def __init__(self, time_limit: float | None = None, include_startup: bool = True) -> None:
        require_number("time_limit", time_limit, 3600, above=0, optional=True)
        self.time_limit, self.include_startup = time_limit, include_startup
        self._end = float("inf")
        self.requested: int | None = None  # the signal that interrupted the run
        # Stopping: the run is at a point it can be resumed from, and ends before its next step.
        self.stopping = self._is_trained = False
        self._trainer: Trainer | None = None
        self._handlers: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.requested, self.stopping, self._trainer, self._is_trained = None, False, trainer, False
        if self.time_limit is not None and stage == "fit":
            age = time.time() - psutil.Process().create_time() if self.include_startup else 0.0
            self._end = time.monotonic() - age + self.time_limit

    def teardown(self, *_: Any, **__: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._handlers.items():
                if signal.getsignal(number) == self._handle:
                    signal.signal(number, handler if handler is not None else signal.SIG_DFL)
            self._handlers = {}

    on_exception = teardown

    def on_train_batch_start(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        self._end_if(self.stopping, trainer)

    on_train_epoch_end = on_train_batch_start

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.stopping = step_completed(trainer) and self._everyone_agrees(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        # During training the validation is finished first; otherwise there is nothing to save.
        if not is_training(trainer):
            self._end_if(self._everyone_agrees(trainer), trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if is_training(trainer):
            self.stopping = self._everyone_agrees(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stopping = self._everyone_agrees(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_if(self.stopping or trainer.world_size == 1, trainer)
        # Everything is saved, and the work that follows (compression, safety) can be repeated, so a signal
        # ends it at once unless other processes wait for this one.
        self._is_trained = trainer.world_size == 1
        self._listen()

    def on_test_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        self._end_if(self._everyone_agrees(trainer), trainer)

    on_predict_batch_end = on_test_batch_end

    def _everyone_agrees(self, trainer: Trainer) -> bool:
        """Whether any process was asked to end; all processes get the same answer and the same signal."""
        if self.requested is None and time.monotonic() >= self._end:
            self._request(TIME_LIMIT)
        if trainer.world_size == 1:
            return self.requested is not None
        own = torch.tensor(self.requested or 0, device=trainer.strategy.root_device)
        agreed = int(trainer.strategy.reduce(own, reduce_op="max"))
        if agreed:
            if self.requested is None:
                self._request(agreed)
            self.requested = agreed
        # Otherwise keep it: a signal that came during the reduction counts the next time.
        return agreed > 0

    def _end_if(self, condition: bool, trainer: Trainer) -> None:
        if condition and self.requested is not None:
            raise self._ending(self.requested, aborted=False)

    def _ending(self, number: int, aborted: bool) -> TrainingInterrupted:
        trainer = self._trainer
        step = trainer.global_step if trainer else 0
        checkpoint = getattr(trainer.checkpoint_callback, "last_model_path", "") if trainer else ""
        ending = TrainingInterrupted(number, step, str(checkpoint), aborted, self._is_trained)
        if trainer and not aborted and _ends_quietly(trainer):
            ending.code = 0
        return ending

    def _listen(self, *_: Any, **__: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python delivers signals to the main thread only
        if self._trainer is not None and take_over_sigterm(self._trainer):  # one came just before
            self._request(signal.SIGTERM)
        for number in _SIGNALS:
            current = signal.getsignal(number)
            if current != self._handle:
                self._handlers[number] = current
                signal.signal(number, self._handle)

    # Lightning installs its own SIGTERM handler just before these events; ours has to replace it.
    on_train_start = on_sanity_check_start = on_validation_start = on_test_start = on_predict_start = _listen

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_trained:
            self.requested = number
            raise self._ending(number, aborted=False)
        if self.requested is None:
            self._request(number)
        elif number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            raise self._ending(number, aborted=True)

    def _request(self, number: int) -> None:
        self.requested, trainer = number, self._trainer
        is_key = number == signal.SIGINT
        name, hint = ("Ctrl-C", " (again to abort at once)") if is_key else (_name(number), "")
        following = "stopping after this batch"
        if trainer is not None and is_training(trainer):
            saves = "saving and " if trainer.checkpoint_callback is not None else ""
            part = "validation" if trainer.validating else "step"
            following = f"finishing this {part}, then {saves}stopping"
        with contextlib.suppress(RuntimeError):  # the signal came while another line was being printed
            say(f"{name}: {following}{hint}")


def _name(number: int) -> str:
    return "the time limit" if number == TIME_LIMIT else signal.Signals(number).name


def _ends_quietly(trainer: Trainer) -> bool:
    """Whether this process must exit with code 0 and leave the exit code to the first one.

    Lightning's launcher and ``srun --kill-on-bad-exit`` kill all processes once one ends in an error, and
    the first may still be writing.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if isinstance(environment, SLURMEnvironment):
        return trainer.global_rank > 0
    return isinstance(environment, LightningEnvironment) and trainer.local_rank > 0


class HangWatch(Callback):
    """Reports the progress of this process to the watch of the run, which ends it ``seconds`` after the last.

    The work after training (final test, report, quantization), which the first process does alone, has no
    time limit.
    """

    def __init__(self, watch: Meeting, seconds: float) -> None:
        self._watch, self._seconds = watch, seconds

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder_of(trainer)

        def write_down(message: str) -> None:
            update_run_info(folder.info_path, notes=(message,))

        self._watch.begin_training(self._seconds, folder.path, write_down)

    def on_train_batch_start(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        self._watch.progress(f"finished step {trainer.global_step + 1:,}")

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        self._watch.progress(f"begun step {trainer.global_step + 1:,}")

    on_validation_end = on_train_batch_end

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._watch.progress(f"finished the validation after step {trainer.global_step:,}")

    def on_save_checkpoint(self, trainer: Trainer, *_: Any) -> None:
        self._watch.progress(f"saved step {trainer.global_step:,}")

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._watch.end_training()

    on_exception = teardown = on_train_end
