"""Keeps the best and the newest state of a run; neither file is ever torn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from insight.callbacks.atomic_io import AtomicCheckpointIO, publish_copy
from insight.callbacks.best_gate import BestGate
from insight.callbacks.interruption import GracefulInterrupt
from insight.callbacks.steps import step_completed, validation_follows
from insight.callbacks.trainer_parts import callbacks_of, run_folder_of
from insight.runtime.errors import ConfigError, nearest

_NEW = ".new.ckpt"


class RunCheckpoint(Checkpoint):
    """Writes ``best.ckpt`` and ``last.ckpt``, each complete at every moment.

    A checkpoint is written under another name, flushed to the disk and renamed, so a crash, a power cut
    or a full disk in the middle of a save leaves the previous file. ``best.ckpt`` is judged by a metric
    of the validation that has just ended, never by an older value. Both files are the same bytes where
    they are the same step (a hard link).

    Args:
        monitor: Logged metric that ``best.ckpt`` is chosen by.
        mode: ``min`` if smaller is better, ``max`` if larger is.
        every_n_steps: Also write ``last.ckpt`` every this many optimizer steps.
        at_validation: Write ``last.ckpt`` after every validation, better or not.
        folder: Where to write; ``checkpoints`` in the run folder if not given.

    Attributes:
        best_model_path: Path of ``best.ckpt``, "" before it exists (Lightning's name).
        best_model_score: Value of the metric there.
        last_model_path: Path of ``last.ckpt``, "" before it exists (Lightning's name).
    """

    def __init__(
        self,
        monitor: str = "validation/bits_per_byte",
        mode: str = "min",
        every_n_steps: int | None = None,
        at_validation: bool = True,
        folder: str | None = None,
    ) -> None:
        if mode not in ("min", "max"):
            raise ConfigError(f"RunCheckpoint(mode={mode!r}): unknown mode", "use min or max")
        if every_n_steps is not None and every_n_steps < 1:
            raise ConfigError(
                f"RunCheckpoint(every_n_steps={every_n_steps}): must be at least 1", "use null for none"
            )
        self.monitor = monitor
        self.mode = mode
        self.every_n_steps = every_n_steps
        self.at_validation = at_validation
        self.folder = Path(folder) if folder else None
        self.best_model_path = ""
        self.best_model_score: float | None = None
        self.best_step = 0
        self.last_model_path = ""
        self._saved_step = -1
        self._due = False
        self._metric_before: Tensor | None = None

    @property
    def state_key(self) -> str:
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)

    def state_dict(self) -> dict[str, Any]:
        return {"best_model_score": self.best_model_score, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A run that goes on in another folder starts its own best.ckpt there.
        if self.best_model_path:
            self.best_model_score = state_dict["best_model_score"]
            self.best_step = state_dict["best_step"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        folder = self.folder or run_folder_of(trainer).checkpoints
        self.folder = folder = Path(trainer.strategy.broadcast(str(folder.absolute())))
        self.best_model_score, self.best_step, self._saved_step, self._due = None, 0, -1, False
        self.best_model_path = _existing(folder / "best.ckpt")
        self.last_model_path = _existing(folder / "last.ckpt")
        if trainer.is_global_zero and folder.is_dir():
            for remains in folder.glob(f"*{_NEW}*"):  # of a run that was killed while it saved
                remains.unlink()
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not step_completed(trainer):
            return
        step = trainer.global_step
        self._due |= bool(self.every_n_steps and step % self.every_n_steps == 0)
        self._due |= _interrupted(trainer) or step == trainer.max_steps
        # Where a validation comes next, the state after it is saved: resuming would not repeat it.
        if self._due and not validation_follows(trainer):
            self._save(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._metric_before = trainer.callback_metrics.get(self.monitor)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        is_best = self._judge(trainer)
        if is_best or self.at_validation or self._due or _interrupted(trainer):
            self._save(trainer, is_best)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._saved_step != trainer.global_step:
            self._save(trainer)

    def _judge(self, trainer: Trainer) -> bool:
        """Whether the validation that has just ended is the best so far."""
        metric = trainer.callback_metrics.get(self.monitor)
        if metric is None:
            names = sorted(trainer.callback_metrics)
            match = nearest(self.monitor, names)
            raise ConfigError(
                f"RunCheckpoint(monitor={self.monitor!r}): no such metric was logged",
                f"did you mean {match!r}?" if match else f"use one of {', '.join(names)}",
            )
        if metric is self._metric_before:
            return False  # this validation did not log it: the value is an older one
        value = float(metric)
        if math.isnan(value):
            return False
        best = self.best_model_score
        better = best is None or (value < best if self.mode == "min" else value > best)
        better = better and not any(gate.blocks_best for gate in callbacks_of(trainer, BestGate))
        if trainer.strategy.reduce_boolean_decision(better):
            self.best_model_score, self.best_step = value, trainer.global_step
            return True
        return False

    def _save(self, trainer: Trainer, is_best: bool = False) -> None:
        if getattr(trainer, "fast_dev_run", False):
            return
        assert self.folder is not None
        new, best, last = (self.folder / name for name in (_NEW, "best.ckpt", "last.ckpt"))
        self._due, self._saved_step = False, trainer.global_step
        trainer.save_checkpoint(new, weights_only=False)
        if trainer.is_global_zero:
            # best.ckpt first: after a crash in between, last.ckpt does not claim a best that is not there.
            if is_best:
                publish_copy(new, best)
            publish_copy(new, last)
            new.unlink()
        self.last_model_path = str(last)
        if is_best:
            self.best_model_path = str(best)
        trainer.strategy.barrier("RunCheckpoint")


def _interrupted(trainer: Trainer) -> bool:
    return any(interrupt.stopping for interrupt in callbacks_of(trainer, GracefulInterrupt))


def _existing(path: Path) -> str:
    return str(path) if path.is_file() else ""
