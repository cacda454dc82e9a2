"""Fits a run into a wall-clock budget on any machine, and keeps resuming exact."""

from __future__ import annotations

import time
from typing import Any, cast

import psutil
from lightning.pytorch import LightningModule, Trainer

from insight.callbacks.throughput import StepTiming
from insight.callbacks.trainer_parts import steps_per_validation
from insight.runtime.errors import ConfigError
from insight.runtime.messages import say
from insight.runtime.numbers import require_number
from insight.training.lightning_internals import (
    restore_options,
    set_last_step,
    step_completed,
    validate_after_this_batch,
)

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

    Attributes:
        planned_steps: Number of optimizer steps in the present plan; ``None`` before the first measurement.
        frozen: Whether the plan is final.
    """

    clock_window = 500
    saved = ("planned_steps", "frozen", "step_seconds", "elapsed")

    def __init__(self, seconds: float, include_startup: bool = True) -> None:
        require_number("seconds", seconds, 150, above=0)
        self.seconds = seconds
        self.include_startup = include_startup
        self._changed_options: dict[str, Any] | None = None
        super().__init__()

    def reset(self) -> None:
        super().reset()
        self.planned_steps: int | None = None
        self.frozen = self._told_slower = False
        self._limit = -1
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
            if self._changed_options is not None:
                restore_options(trainer, self._changed_options)
                self._changed_options = None

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
        if self.planned_steps is None:
            pl_module.num_planned_steps = self._limit if self._limit > 0 else _STEPS_BEFORE_PLANNING  # type: ignore[assignment]
        if self.frozen:
            say(f"time budget: the plan of {self.planned_steps:,} steps was final before; it is kept")
        elif self.elapsed >= self.seconds:
            raise ConfigError(
                f"{self.elapsed:.0f} s were over before the first step",
                "give the run more time, or set include_startup to false",
                option="seconds",
                value=self.seconds,
            )

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
            self._changed_options = validate_after_this_batch(trainer)

    def _plan(self, trainer: Trainer, step: int) -> None:
        per_step = self.clock.seconds_per_step
        planned: int | None = None
        if per_step is not None:
            validation = self.clock.seconds_per_validation
            if validation is None:
                # Estimate it before the first validation: a forward pass is about a third of a training step.
                batches = trainer.num_val_batches
                validation = sum(batches if isinstance(batches, list) else [batches]) * per_step / 3
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
