"""How long the run would take: the two timed steps, counted up to its end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer

from insight.cli.checks.batches import Batches, batches_per_validation
from insight.cli.checks.findings import Findings
from insight.cli.checks.processes import Processes
from insight.cli.checks.trial import StepTimes
from insight.training import ScheduleConfig

if TYPE_CHECKING:
    from insight.cli.lightning import InsightCLI

# Points of the run at which the schedule is looked at.
_NUM_POINTS = 1000
_FULL_RATE = 0.5


def outlook_of(
    cli: InsightCLI, trainer: Trainer, processes: Processes, batches: Batches, times: StepTimes
) -> dict[str, Any]:
    """Steps, tokens, epochs and seconds of the whole run.

    Processes that share this machine's cores are taken to slow one another down in proportion; what they say
    to one another is not counted.

    Returns:
        Plain numbers; those of a run that no number limits are ``None``.
    """
    shared = processes.num_sharing
    step = shared * (times.batch * batches.accumulation + times.update)
    validation = shared * (times.validation_batch or 0.0) * batches.per_validation
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
    """Optimizer steps after which the Trainer ends the run; ``None`` where only time or a callback does."""
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        limits.append(trainer.max_epochs * batches.steps_per_epoch)
    return min(limits, default=None)


def check_schedule(cli: InsightCLI, batches: Batches, num_steps: int, findings: Findings) -> None:
    """Refuse phases that are longer than the run, warn of a rate that never comes near its full value."""
    schedule = getattr(cli.model, "schedule", None)
    if not isinstance(schedule, ScheduleConfig):
        return
    schedule = schedule.in_steps(batches.tokens_per_step)
    findings.accepts(schedule.check_fits, num_steps)
    points = range(0, num_steps, math.ceil(num_steps / _NUM_POINTS))
    highest = max(schedule.multiplier(step, num_steps) for step in points)
    if highest < _FULL_RATE:
        findings.warn(
            f"model.schedule={type(schedule).__name__}: the learning rate reaches only {highest:.0%} of its "
            f"full value in {num_steps:,} steps",
            "shorten the warm-up or train longer",
        )


def _seconds_allowed(cli: InsightCLI, trainer: Trainer) -> float | None:
    allowed = [
        callback._duration
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and callback._duration is not None
    ]
    if cli.run_config.time_budget is not None:
        allowed.append(cli.run_config.time_budget)
    return min(allowed, default=None)
