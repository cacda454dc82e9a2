"""A few real steps: the whole machinery on two sequences, then two timed steps on real batches."""

from __future__ import annotations

import contextlib
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from insight.callbacks import TimeBudget
from insight.cli.checks.batches import Batches
from insight.cli.checks.findings import Findings
from insight.runtime.errors import InsightError
from insight.training import InverseSquareRoot
from insight.training.compilation import CompileChoice

if TYPE_CHECKING:
    from insight.cli.lightning import InsightCLI

_NUM_SEQUENCES = 2
_NUM_TIMED_STEPS = 2
_NAMES_SHOWN = 3
# One process, each batch a step of its own: how long accumulation and other processes make it is computed.
_ALONE: dict[str, Any] = {"devices": 1, "num_nodes": 1, "strategy": "auto", "accumulate_grad_batches": 1}


@dataclass(frozen=True)
class StepTimes:
    """Seconds on one process.

    Args:
        batch: Forward and backward pass of one batch, with loading it.
        update: Clipping, optimizer and callbacks of one step.
        validation_batch: One batch of a validation; ``None`` where there was none.
    """

    batch: float
    update: float
    validation_batch: float | None


def without_clocks_and_files(callbacks: list[Callback]) -> list[Callback]:
    """Those that neither write checkpoints nor end training by a clock that started before the check."""
    return [callback for callback in callbacks if not isinstance(callback, (Checkpoint, TimeBudget))]


def try_two_sequences(cli: InsightCLI, batches: Batches, findings: Findings) -> dict[str, Any]:
    """Forward, backward and update through the real Trainer.

    Returns:
        The loss, and of how many sequences (a very short text has no two).

    Raises:
        InsightError: The loss is no number.
    """
    observer = _GradientObserver()
    num_sequences = min(_NUM_SEQUENCES, batches.batch_size * batches.per_epoch)
    with _batch_size(cli, num_sequences), _eager(cli):
        trainer = _train(cli, 1, observer)
    loss = float(trainer.callback_metrics.get("train/loss", math.nan))
    if not math.isfinite(loss):
        raise InsightError(
            f"the loss of the first {num_sequences} sequences is {loss}", "use --trainer.precision 32-true"
        )
    if observer.without_gradient:
        shown = ", ".join(observer.without_gradient[:_NAMES_SHOWN])
        findings.warn(
            f"{len(observer.without_gradient)} parameters get no gradient ({shown}, …)",
            "several processes need --trainer.strategy ddp_find_unused_parameters_true for that",
        )
    return {"num_sequences": num_sequences, "loss": loss}


def time_two_steps(cli: InsightCLI) -> StepTimes:
    """Warm up with one real batch and time two more, and as many of a validation."""
    stopwatch = _Stopwatch()
    _train(cli, 1 + _NUM_TIMED_STEPS, stopwatch)
    return stopwatch.times()


def _train(cli: InsightCLI, num_batches: int, observer: Callback) -> Trainer:
    callbacks, options = cli.callbacks, cli.config_init.trainer
    schedule = getattr(cli.model, "schedule", None)
    configured = {name: options[name] for name in (*_ALONE, "default_root_dir")}
    cli.callbacks = [observer, *callbacks]
    if schedule is not None:  # that of the run need not fit into three steps
        cli.model.schedule = InverseSquareRoot()
    try:
        with tempfile.TemporaryDirectory(prefix="insight-check-") as folder:
            for name, value in {**_ALONE, "default_root_dir": folder}.items():
                options[name] = value
            trainer = cli.make_trainer(fast_dev_run=num_batches)
            trainer.fit(cli.model, datamodule=cli.datamodule)
    finally:
        cli.callbacks = callbacks
        if schedule is not None:
            cli.model.schedule = schedule
        for name, value in configured.items():
            options[name] = value
    return trainer


@contextlib.contextmanager
def _batch_size(cli: InsightCLI, size: int) -> Iterator[None]:
    configured, cli.datamodule.batch_size = cli.datamodule.batch_size, size
    try:
        yield
    finally:
        cli.datamodule.batch_size = configured


@contextlib.contextmanager
def _eager(cli: InsightCLI) -> Iterator[None]:
    """Compiling for a batch that never comes again would take a minute."""
    configured = getattr(cli.model, "compile_choice", None)
    if configured is None:  # a module of the user's own
        yield
        return
    cli.model.compile_choice = CompileChoice("off")
    try:
        yield
    finally:
        cli.model.compile_choice = configured


class _GradientObserver(Callback):
    """Notes the trainable parameters that the backward pass has left out."""

    def __init__(self) -> None:
        self.without_gradient: list[str] = []

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.without_gradient = [
            name for name, p in pl_module.named_parameters() if p.requires_grad and p.grad is None
        ]


class _Stopwatch(Callback):
    """Times each batch from the end of the one before, so that nothing falls between."""

    def __init__(self) -> None:
        self._batches: list[float] = []
        self._updates: list[float] = []
        self._validation_batches: list[float] = []
        self._last = 0.0

    def times(self) -> StepTimes:
        """Means without the first of each, unless there is only the first."""
        batch, update, validation = (
            statistics.fmean(seconds[1:] or seconds) if seconds else None
            for seconds in (self._batches, self._updates, self._validation_batches)
        )
        assert batch is not None
        assert update is not None
        return StepTimes(batch, update, validation)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last = _now(trainer)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self._batches.append(self._lap(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._updates.append(self._lap(trainer))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last = _now(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._validation_batches.append(self._lap(trainer))

    def _lap(self, trainer: Trainer) -> float:
        now = _now(trainer)
        seconds, self._last = now - self._last, now
        return seconds


def _now(trainer: Trainer) -> float:
    """The time when the device has done what it was given: it works asynchronously."""
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
