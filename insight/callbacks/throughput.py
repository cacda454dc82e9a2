"""Measures and logs the speed of training, the share of the machine's speed, and the time left."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from insight.callbacks.trainer_parts import TrainingState, planned_steps, steps_per_validation
from insight.runtime.hardware import matmul_rate
from insight.runtime.numbers import require_number
from insight.training.lightning_internals import logs_this_batch, step_completed
from insight.training.parallel import num_replicas

# The first steps choose kernels, compile and fill caches, so they are not representative.
_STEPS_TO_SKIP = 2
# A step longer than this many medians was disturbed (by another process, or by page faults); it counts with
# this length.
_LONGEST_IN_MEDIANS = 3.0
_RECENT_STEPS = 20


class StepClock:
    """Measures the time from the start of one optimizer step to the start of the next.

    A step that a validation or a save follows ends there; the time until the next step is a pause.

    Args:
        window: Number of steps that the rate is averaged over.
        now: The clock, in seconds.
    """

    def __init__(self, window: int = 100, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._seconds: deque[float] = deque(maxlen=window)
        self._tokens: deque[int] = deque(maxlen=window)
        self._validations: deque[float] = deque(maxlen=5)
        self._saving_seconds = 0.0
        self._num_steps = 0
        self._started: float | None = None
        self._step_tokens = 0
        self._pause: str | None = None
        self._pause_started = 0.0
        self._usual: float | None = None

    def start_step(self) -> None:
        """Start an optimizer step; the time since the last call belongs to the previous step."""
        now = self._now()
        if self._started is not None:
            self._record(self._started, now)
        self._started, self._step_tokens, self._pause = now, 0, None

    def count_tokens(self, num_tokens: int) -> None:
        """Add ``num_tokens`` to the tokens of the present step."""
        self._step_tokens += num_tokens

    def pause_for(self, reason: str) -> None:
        """Start a ``"validation"`` or a ``"save"`` after the present step; a validation may contain saves."""
        if self._pause is None:
            self._pause_started = self._now()
        if self._pause != "validation":
            self._pause = reason

    @property
    def seconds_per_step(self) -> float | None:
        """Mean over the window, outliers cut; ``None`` before the first measured step."""
        if self._usual is None and self._seconds:
            longest = _LONGEST_IN_MEDIANS * statistics.median(self._seconds)
            self._usual = statistics.fmean(min(seconds, longest) for seconds in self._seconds)
        return self._usual

    @property
    def recent_seconds_per_step(self) -> float | None:
        """Median of the last 20 steps; ``None`` before 20 steps were measured."""
        if len(self._seconds) < _RECENT_STEPS:
            return None
        return statistics.median(list(self._seconds)[-_RECENT_STEPS:])

    @property
    def tokens_per_second(self) -> float | None:
        """Mean over the window; ``None`` before the first measured step."""
        return sum(self._tokens) / sum(self._seconds) if self._seconds else None

    @property
    def seconds_per_validation(self) -> float | None:
        """Median over the last validations; ``None`` before the first."""
        return statistics.median(self._validations) if self._validations else None

    @property
    def seconds_per_step_for_saving(self) -> float:
        """Time of all saves outside validations, divided by the number of steps."""
        return self._saving_seconds / self._num_steps if self._num_steps else 0.0

    def _record(self, started: float, now: float) -> None:
        ended = now if self._pause is None else self._pause_started
        self._num_steps += 1
        if self._num_steps > _STEPS_TO_SKIP:
            self._seconds.append(ended - started)
            self._tokens.append(self._step_tokens)
            self._usual = None
        if self._pause == "validation":
            self._validations.append(now - ended)
        elif self._pause == "save":
            self._saving_seconds += now - ended


class StepTiming(TrainingState):
    """The base of callbacks that need the duration of a step."""

    clock_window = 100

    def reset(self) -> None:
        self.clock = StepClock(self.clock_window)
        self._between_steps = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._between_steps:
            self.clock.start_step()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        targets = getattr(batch, "targets", None)
        if targets is not None:
            self.clock.count_tokens(targets.numel() * num_replicas(trainer))
        self._between_steps = step_completed(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock.pause_for("validation")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.clock.pause_for("save")


def seconds_left(trainer: Trainer, module: LightningModule, clock: StepClock) -> float | None:
    """Seconds until training ends, validations included; ``None`` if unknown."""
    total, per_step = planned_steps(trainer, module), clock.seconds_per_step
    if total is None or per_step is None:
        return None
    left = max(0, total - trainer.global_step)
    pauses = (clock.seconds_per_validation or 0.0) / steps_per_validation(trainer)
    return left * (per_step + clock.seconds_per_step_for_saving + pauses)


class ThroughputMonitor(StepTiming):
    """Logs ``throughput/tokens_per_second``, ``throughput/matmul_share`` and ``throughput/seconds_left``.

    Tokens per second are averaged over a window of steps, without validations, samples and checkpoints. The
    matmul share is the network's matmul FLOPs per second divided by the rate that this machine reached in a
    short measurement with the type of training; it is not logged if that rate could not be measured.

    Args:
        window: Number of optimizer steps that the rate is averaged over.
    """

    def __init__(self, window: int = 50) -> None:
        require_number("window", window, 50, whole=True, at_least=1)
        self.clock_window = window
        super().__init__()

    def reset(self) -> None:
        super().reset()
        self._flops_per_token: int | None = None
        self._machine_flops: float | None = None

    @property
    def matmul_share(self) -> float | None:
        """Reached matmul FLOP/s divided by those measured for this machine; ``None`` if either is unknown."""
        rate = self.clock.tokens_per_second
        if rate is None or self._flops_per_token is None or not self._machine_flops:
            return None
        return rate * self._flops_per_token / self._machine_flops

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The rate is of one device: CUDA processes have one each, CPU processes of a node share one.
        machines = trainer.world_size if trainer.strategy.root_device.type == "cuda" else trainer.num_nodes
        rate = matmul_rate(str(trainer.precision))
        self._machine_flops = rate * machines if rate else None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        count = getattr(getattr(pl_module, "network", None), "flops_per_token", None)
        if self._flops_per_token is None and callable(count) and hasattr(batch, "targets"):
            self._flops_per_token = int(count(batch.targets.shape[-1]))
        if not logs_this_batch(trainer):
            return
        values = {
            "tokens_per_second": self.clock.tokens_per_second,
            "matmul_share": self.matmul_share,
            "seconds_left": seconds_left(trainer, pl_module, self.clock),
        }
        known = {f"throughput/{name}": value for name, value in values.items() if value is not None}
        pl_module.log_dict(known, batch_size=1)
