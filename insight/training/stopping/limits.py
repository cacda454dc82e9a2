"""Stops at a fixed mark: the goal, a value that is beyond hope, a number of tokens, a number of hours."""

from __future__ import annotations

import math
from dataclasses import dataclass

from insight.runtime.errors import ConfigError
from insight.training.stopping.base import Criterion, EvidenceLine, History, Verdict


@dataclass(frozen=True)
class TargetReached(Criterion):
    """The metric is good enough.

    Args:
        value: Training ends as soon as the metric is at most this.
    """

    value: float

    def judge(self, history: History) -> Verdict:
        newest = history.newest.value
        evidence = f"{newest:.4f}, target {self.value:g}"
        line = _flat("target", self.value, history)
        return Verdict(newest <= self.value, evidence, {"target": self.value}, (line,))


@dataclass(frozen=True)
class Divergence(Criterion):
    """The metric is no number, or far above the best so far.

    Args:
        factor: How many times the best value is beyond hope.
    """

    factor: float = 1.5

    def __post_init__(self) -> None:
        if not self.factor > 1:
            raise ConfigError(f"factor={self.factor}: must be above 1", "use e.g. 1.5")

    def judge(self, history: History) -> Verdict:
        values = [validation.value for validation in history.validations]
        if not math.isfinite(values[-1]):
            return Verdict(True, f"the metric is {values[-1]}")
        best = min(value for value in values if math.isfinite(value))
        bound = best + (self.factor - 1) * abs(best)
        evidence = f"{values[-1]:.4f}, beyond hope above {bound:.4f}"
        line = _flat("beyond hope", bound, history)
        return Verdict(values[-1] > bound, evidence, {"bound": bound}, (line,))


@dataclass(frozen=True)
class TokenBudget(Criterion):
    """So many training tokens were seen.

    Args:
        num_tokens: Tokens of the whole run, over all processes.
    """

    num_tokens: int

    def __post_init__(self) -> None:
        if self.num_tokens < 1:
            raise ConfigError(f"num_tokens={self.num_tokens}: must be at least 1", "use e.g. 1000000000")

    def judge(self, history: History) -> Verdict:
        seen = history.newest.num_tokens
        return Verdict(seen >= self.num_tokens, f"{seen:,} of {self.num_tokens:,} tokens", {"tokens": seen})


@dataclass(frozen=True)
class DurationBudget(Criterion):
    """The run has taken so many hours.

    Unlike ``run.time_budget``, which plans the learning rate so that its decay ends in time, this only ends
    the run at the first validation after that: for schedules without an end. The hours before an
    interruption count, those until the run was resumed do not.

    Args:
        hours: Of the whole run, validations included.
    """

    hours: float

    def __post_init__(self) -> None:
        if not 0 < self.hours < math.inf:
            raise ConfigError(f"hours={self.hours}: must be a number above 0", "use e.g. 24")

    def judge(self, history: History) -> Verdict:
        if history.newest.seconds is None:
            return Verdict(False, "how long the run has taken is not known")
        hours = history.newest.seconds / 3600
        return Verdict(hours >= self.hours, f"{hours:.3g} of {self.hours:g} hours", {"hours": hours})


def _flat(label: str, value: float, history: History) -> EvidenceLine:
    return EvidenceLine(label, (history.validations[0].step, history.newest.step), (value, value))
