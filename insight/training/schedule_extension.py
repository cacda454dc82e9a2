"""A resumed run that is planned anew: whether its learning rate goes on as if it had always been so."""

from __future__ import annotations

from insight.runtime.messages import say
from insight.training.schedules import ScheduleConfig


def say_new_length(schedule: ScheduleConfig, step: int, planned_before: int | None, planned_now: int) -> None:
    """Say so where the steps already taken would have had other rates under the new plan.

    Args:
        schedule: Of the learning rate.
        step: Optimizer steps taken.
        planned_before: Steps that were planned when they were taken; ``None`` for a new run.
        planned_now: Steps that are planned now.
    """
    if planned_before is None or planned_before == planned_now:
        return
    settled = schedule.settled_steps(min(planned_before, planned_now))
    if step <= settled:
        return
    before, now = (schedule.multiplier(step, planned) for planned in (planned_before, planned_now))
    say(
        f"the run had {planned_before:,} planned steps and has {planned_now:,} now, but its learning rate "
        f"depends on that from step {settled:,} on: it goes on at {now:.0%} of the full rate, not "
        f"{before:.0%}; a checkpoint up to step {settled:,} goes on as if {planned_now:,} had always been "
        f"planned"
    )
