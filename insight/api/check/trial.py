"""A few real steps: one of the whole machinery on two sequences, then two timed ones on real batches."""

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
from lightning.pytorch.callbacks import Checkpoint, Timer

from insight.api.check.batches import Batches, Processes, batches_per_validation
from insight.api.check.findings import Findings
from insight.callbacks import TimeBudget
from insight.data.text_data_module import TextDataModule
from insight.runtime.errors import InsightError
from insight.training import InverseSquareRoot, ScheduleConfig
from insight.training.module import TrainingModule

if TYPE_CHECKING:
    from insight.api.configuration import InsightCLI


_NUM_SEQUENCES = 2
_NUM_TIMED_STEPS = 2
_NAMES_SHOWN = 3
# One process, and a step per batch: the effect of accumulation and of other processes is computed.
_ALONE: dict[str, Any] = {"devices": 1, "num_nodes": 1, "strategy": "auto", "accumulate_grad_batches": 1}


@dataclass(frozen=True)
class StepTimes:
    """Seconds on one process."""

    batch: float  # loading, forward and backward pass of one batch
    update: float  # clipping, optimizer and callbacks of one step
    validation_batch: float  # 0 if there was no validation


def without_clocks_and_files(callbacks: list[Callback]) -> list[Callback]:
    """The callbacks that neither write checkpoints nor end training by a clock that has already started."""
    return [callback for callback in callbacks if not isinstance(callback, (Checkpoint, TimeBudget))]


def try_two_sequences(cli: InsightCLI, batches: Batches, findings: Findings) -> dict[str, Any]:
    """Run forward, backward and update passes through the real Trainer, then generate one token.

    Returns the loss and the number of sequences (a very short text does not have two).

    Raises:
        InsightError: The loss is NaN or infinite, or the network cannot generate.
    """
    observer = _GradientObserver()
    num_sequences = min(_NUM_SEQUENCES, batches.batch_size * batches.per_epoch)
    # Compilation takes a minute, and these batches do not come again.
    eager = _replaced(cli.model, compile_choice="off")
    data: Any = cli.datamodule
    small = {"batch_size": num_sequences}
    if isinstance(data, TextDataModule):
        small = {data.size_option: data.size_of(num_sequences)}
    with eager, _replaced(data, **small):
        trainer = _train(cli, 1, observer)
    if isinstance(data, TextDataModule):
        data.start_over()  # since the position counts in batches of another size
    loss = float(trainer.callback_metrics.get("train/loss", math.nan))
    if not math.isfinite(loss):
        problem = f"the loss of the first {num_sequences} sequences is {loss}"
        raise InsightError(problem, "use --trainer.precision 32-true")
    if names := observer.without_gradient:
        problem = f"{len(names)} parameters get no gradient ({', '.join(names[:_NAMES_SHOWN])}, …)"
        remedy = "several processes need --trainer.strategy ddp_find_unused_parameters_true for that"
        findings.warn(problem, remedy)
    if isinstance(cli.model, TrainingModule):
        cli.model.try_to_write()
    return {"num_sequences": observer.num_sequences or num_sequences, "loss": loss}


def time_two_steps(cli: InsightCLI) -> StepTimes:
    """Warm up with one real batch, then time two training batches and two validation batches."""
    stopwatch = _Stopwatch()
    _train(cli, 1 + _NUM_TIMED_STEPS, stopwatch)
    return stopwatch.times()


def _train(cli: InsightCLI, num_batches: int, observer: Callback) -> Trainer:
    # The schedule of the run may not fit into three steps.
    schedule = {"schedule": InverseSquareRoot()} if getattr(cli.model, "schedule", None) else {}
    with (
        tempfile.TemporaryDirectory(prefix="insight-check-") as folder,
        _replaced(cli.config_init.trainer, **_ALONE, default_root_dir=folder),
        _replaced(cli.model, **schedule),
        _replaced(cli, callbacks=[observer, *cli.callbacks]),
    ):
        trainer = cli.make_trainer(fast_dev_run=num_batches)
        trainer.fit(cli.model, datamodule=cli.datamodule)
    return trainer


@contextlib.contextmanager
def _replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Give an object other attributes inside the block, as far as it has them (the user's own may not)."""
    before = {name: getattr(owner, name) for name in values if hasattr(owner, name)}
    for name in before:
        setattr(owner, name, values[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


class _GradientObserver(Callback):
    """Records the trainable parameters that receive no gradient."""

    def __init__(self) -> None:
        self.without_gradient: list[str] = []
        self.num_sequences = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.num_sequences = len(getattr(batch, "targets", ()))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.without_gradient = [
            name for name, p in pl_module.named_parameters() if p.requires_grad and p.grad is None
        ]


class _Stopwatch(Callback):
    """Times each batch from the end of the previous one, so that no work is left out."""

    def __init__(self) -> None:
        self._batches: list[float] = []
        self._updates: list[float] = []
        self._validation_batches: list[float] = []
        self._last = 0.0

    def times(self) -> StepTimes:
        """Mean times without the first reading of each, unless it is the only one."""
        measured = (self._batches, self._updates, self._validation_batches)
        return StepTimes(*(statistics.fmean(seconds[1:] or seconds or [0.0]) for seconds in measured))

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
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        self._validation_batches.append(self._lap(trainer))

    def _lap(self, trainer: Trainer) -> float:
        now = _now(trainer)
        seconds, self._last = now - self._last, now
        return seconds


def _now(trainer: Trainer) -> float:
    """The time when the device, which works asynchronously, has finished."""
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


# Number of points of the run at which the schedule is evaluated.
_NUM_POINTS = 1000
_FULL_RATE = 0.5


def outlook_of(
    cli: InsightCLI, trainer: Trainer, processes: Processes, batches: Batches, times: StepTimes
) -> dict[str, Any]:
    """Steps, tokens, epochs and seconds of the whole run; ``None`` where no limit of the run determines them.

    Processes that share this machine's cores are assumed to slow one another down in proportion.
    Communication between them is not counted.
    """
    shared = processes.num_sharing
    step = shared * (times.batch * batches.accumulation + times.update)
    validation = shared * times.validation_batch * batches.per_validation
    interval = batches_per_validation(batches, trainer) / batches.accumulation
    limit, budget = step_limit(trainer, batches), _seconds_allowed(cli, trainer)
    limits = [] if limit is None else [limit]
    if budget is not None:
        limits.append(max(1, int(budget / (step + validation / interval))))
    num_steps = min(limits, default=None)
    numbers: dict[str, Any] = {
        "seconds_per_step": step,
        "tokens_per_second": batches.tokens_per_step / step,
        "seconds_per_validation": validation,
        "seconds_allowed": budget,
        "num_steps": num_steps,
    }
    if num_steps is None:
        return numbers | dict.fromkeys(("num_tokens", "num_epochs", "num_validations", "seconds"))
    num_validations = int(num_steps / interval)
    return numbers | {
        "num_tokens": num_steps * batches.tokens_per_step,
        "num_epochs": num_steps / batches.steps_per_epoch,
        "num_validations": num_validations,
        "seconds": num_steps * step + num_validations * validation,
    }


def step_limit(trainer: Trainer, batches: Batches) -> int | None:
    """Optimizer steps after which the Trainer ends the run; ``None`` if only time or a callback ends it."""
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        limits.append(trainer.max_epochs * batches.steps_per_epoch)
    return min(limits, default=None)


def check_schedule(cli: InsightCLI, batches: Batches, num_steps: int, findings: Findings) -> None:
    """Refuse phases longer than the run, and warn of a rate that never comes near its full value."""
    schedule = getattr(cli.model, "schedule", None)
    if not isinstance(schedule, ScheduleConfig):
        return
    schedule = schedule.in_steps(batches.tokens_per_step)
    findings.accepts(schedule.check_fits, num_steps)
    points = range(0, num_steps, math.ceil(num_steps / _NUM_POINTS))
    highest = max(schedule.multiplier(step, num_steps) for step in points)
    if highest < _FULL_RATE:
        problem = f"the learning rate reaches only {highest:.0%} of its full value in {num_steps:,} steps"
        remedy = "shorten the warm-up or train longer"
        findings.warn(f"model.schedule={type(schedule).__name__}: {problem}", remedy)


def _seconds_allowed(cli: InsightCLI, trainer: Trainer) -> float | None:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    timers = [callback._duration for callback in callbacks if isinstance(callback, Timer)]
    allowed = [duration for duration in timers if duration is not None]
    if cli.run_config.time_budget is not None:
        allowed.append(cli.run_config.time_budget)
    return min(allowed, default=None)
