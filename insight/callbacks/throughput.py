"""Measures and logs the speed of training, the share of the machine's speed, and the time left."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import psutil
from lightning.pytorch import LightningModule, Trainer

from insight.callbacks.trainer import TrainingState, planned_steps, steps_per_validation, tokens_of
from insight.runtime.errors import ConfigError
from insight.runtime.hardware import matmul_rate
from insight.runtime.messages import say
from insight.runtime.numbers import require_number
from insight.training.lightning_internals import (
    logs_this_batch,
    restore_options,
    set_last_step,
    step_completed,
    validate_after_this_batch,
)
from insight.training.module import TrainingModule
from insight.training.parallel import num_replicas

# The first steps choose kernels, compile and fill caches, so they are not representative.
_STEPS_TO_SKIP = 2
# A step longer than this many medians was disturbed (by another process, or by page faults); it counts with
# this length.
_LONGEST_IN_MEDIANS = 3.0
_RECENT_STEPS = 20


class StepClock:
    """Measures the time from the start of one optimizer step to the start of the next.

    A step that a validation or a save follows ends there; the time until the next step is a pause. Rates are
    averaged over a window of steps.
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
        self.clock.count_tokens(tokens_of(batch) * num_replicas(trainer))
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


def _flops_per_token(module: LightningModule, batch: Any) -> int | None:
    if isinstance(module, TrainingModule):
        return module.flops_per_token(batch)
    count = getattr(getattr(module, "network", None), "flops_per_token", None)
    return int(count(batch.targets.shape[-1])) if callable(count) and hasattr(batch, "targets") else None


class ThroughputMonitor(StepTiming):
    """Logs ``throughput/tokens_per_second``, ``throughput/matmul_share`` and ``throughput/seconds_left``.

    Tokens per second, those of source and target together for a translation model, are averaged over a window
    of steps, without validations, samples and checkpoints. The
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
        if self._flops_per_token is None:
            self._flops_per_token = _flops_per_token(pl_module, batch)
        if not logs_this_batch(trainer):
            return
        values = {
            "tokens_per_second": self.clock.tokens_per_second,
            "matmul_share": self.matmul_share,
            "seconds_left": seconds_left(trainer, pl_module, self.clock),
        }
        known = {f"throughput/{name}": value for name, value in values.items() if value is not None}
        pl_module.log_dict(known, batch_size=1)


# The plan is renewed this often, counted in steps so that all processes do it together.
_STEPS_BETWEEN_PLANS = 5
# Schedules without a stable phase need the total from the start, so their plan is final early.
_STEPS_TO_MEASURE = 20
# The assumed total until the first measurement.
_STEPS_BEFORE_PLANNING = 1000
# Kept free for the last checkpoint and for errors of the measurement.
_RESERVED_SHARE = 0.01
_SLOWER_WORTH_A_WORD = 1.1


class TimeBudget(StepTiming):
    """Ends training, the last validation included, within a number of seconds.

    The number of optimizer steps is planned from the measured time of a step and of a validation. The plan
    is renewed until a warmup-stable-decay schedule begins to decay, or for the first 20 steps of any other (a
    fifth of a very short run). Then it is final: a resumed run ends at the same step with the same learning
    rates, however fast the machine is. On a machine that becomes slower, the run reports it and ends late,
    since cutting the decay short would cost quality and make the result depend on the machine. ``max_steps``
    and ``max_epochs`` of the Trainer stay upper limits.

    Args:
        seconds: Wall-clock time for everything up to the end of training.
        include_startup: Count from the start of the process (imports, tokenizer training, encoding and
            compiling are then part of the budget) instead of the first step. Set it to false if one process
            trains several times, as in a notebook.
    """

    clock_window = 500
    saved = ("planned_steps", "frozen", "step_seconds", "elapsed")

    def __init__(self, seconds: float, include_startup: bool = True) -> None:
        require_number("seconds", seconds, 150, above=0)
        self.seconds = seconds
        self.include_startup = include_startup
        super().__init__()

    def reset(self) -> None:
        super().reset()
        self.planned_steps: int | None = None  # before the first measurement
        self.frozen = self._told_slower = False  # frozen: the plan is final
        self._limit = -1
        self._translation_seconds = 0.0  # of a validation; before the first one
        self.step_seconds = self._elapsed_before = 0.0
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Used seconds of the budget, in this process and in those that it was resumed from."""
        return self._elapsed_before + time.monotonic() - self._start

    @elapsed.setter
    def elapsed(self, seconds: float) -> None:
        self._elapsed_before = seconds

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._limit = trainer.max_steps
            cast(Any, pl_module).expected_seconds = self.seconds  # `compile: auto` decides by this
            if self.include_startup:
                self._start -= time.time() - psutil.Process().create_time()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            set_last_step(trainer, self._limit)  # the Trainer may train again
            restore_options(trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # This comes before Lightning restores its loops, which read max_steps.
        planned = checkpoint["callbacks"].get(self.state_key, {}).get("planned_steps")
        if planned is not None and trainer.state.fn == "fit":
            set_last_step(trainer, planned)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.include_startup:
            self._start = time.monotonic()
        if isinstance(pl_module, TrainingModule) and not self.frozen:
            self._translation_seconds = pl_module.expected_translation_seconds()
            if self._translation_seconds >= 1:
                seconds = self._translation_seconds
                say(f"time budget: translating takes about {seconds:.0f} s of each validation, which count")
        if self.planned_steps is None:
            pl_module.num_planned_steps = self._limit if self._limit > 0 else _STEPS_BEFORE_PLANNING  # type: ignore[assignment]
        if self.frozen:
            say(f"time budget: the plan of {self.planned_steps:,} steps was final before; it is kept")
        elif self.elapsed >= self.seconds:
            problem = f"{self.elapsed:.0f} s were over before the first step"
            remedy = "give the run more time, or set include_startup to false"
            raise ConfigError(problem, remedy, option="seconds", value=self.seconds)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        super().on_train_batch_start(trainer, pl_module, *args)
        self._apply(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *args)
        if not step_completed(trainer):
            return
        step = trainer.global_step
        if self.frozen:
            self._watch_speed(step)
        else:
            if step % _STEPS_BETWEEN_PLANS == 0 or self.planned_steps is None:
                self._plan(trainer, step)
            self._freeze_if_due(pl_module, step)
        self._apply(trainer, pl_module)
        if self.planned_steps is not None and step >= self.planned_steps and not trainer.should_stop:
            validate_after_this_batch(trainer)

    def _plan(self, trainer: Trainer, step: int) -> None:
        per_step = self.clock.seconds_per_step
        planned: int | None = None
        if per_step is not None:
            validation = self.clock.seconds_per_validation
            if validation is None:
                # Estimate it before the first validation: a forward pass is about a third of a training step.
                batches = trainer.num_val_batches
                validation = sum(batches if isinstance(batches, list) else [batches]) * per_step / 3
                validation += self._translation_seconds
            cost = per_step + self.clock.seconds_per_step_for_saving
            cost += validation / steps_per_validation(trainer)
            left = self.seconds * (1 - _RESERVED_SHARE) - self.elapsed - validation
            planned = step + max(0, int(left / cost))
            self.step_seconds = per_step
        elif self.elapsed >= self.seconds:
            planned = step
        planned = trainer.strategy.broadcast(planned)
        if planned is not None:
            self.planned_steps = min(planned, self._limit) if self._limit > 0 else planned

    def _freeze_if_due(self, module: LightningModule, step: int) -> None:
        if self.planned_steps is None:
            return
        count: Any = getattr(getattr(module, "schedule", None), "settled_steps", None)
        settled = count(self.planned_steps) if count else 0
        # A few steps are measured even if the decay begins at once or the schedule is unknown. If the rate
        # never depends on the plan, the plan becomes final early, so that the run's length is known.
        to_measure = min(_STEPS_TO_MEASURE, self.planned_steps / 5)
        decay_from = settled if settled < self.planned_steps else 0
        if step >= max(decay_from, to_measure):
            self.frozen = True
            say(f"time budget: {self.planned_steps:,} steps fit into {self.seconds:g} s; this is final now")

    def _watch_speed(self, step: int) -> None:
        recent, planned = self.clock.recent_seconds_per_step, self.step_seconds
        if self._told_slower or recent is None or self.planned_steps is None or not planned:
            return
        ratio = recent / planned
        if ratio > _SLOWER_WORTH_A_WORD and step % _STEPS_TO_MEASURE == 0:
            self._told_slower = True
            late = (self.planned_steps - step) * (recent - planned)
            say(
                f"time budget: the machine has become {ratio - 1:.0%} slower; the plan of"
                f" {self.planned_steps:,} steps is kept and ends about {late:.0f} s late"
            )

    def _apply(self, trainer: Trainer, module: LightningModule) -> None:
        if self.planned_steps is not None:
            module.num_planned_steps = self.planned_steps  # type: ignore[assignment]
            set_last_step(trainer, self.planned_steps)
