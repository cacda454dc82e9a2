"""Stops at a fixed mark: the goal, a value that is beyond hope, a number of tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

from insight.runtime.errors import ConfigError
from insight.training.stopping.base import Criterion, History, Verdict


@dataclass(frozen=True)
class TargetReached(Criterion):
    """The metric is good enough.

    Args:
        value: Training ends as soon as the metric is at most this.
    """

    value: float

    def judge(self, history: History) -> Verdict:
        newest = history.newest.value
        return Verdict(newest <= self.value, f"{newest:.4f}, target {self.value:g}", {"target": self.value})


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
        return Verdict(
            values[-1] > bound, f"{values[-1]:.4f}, beyond hope above {bound:.4f}", {"bound": bound}
        )


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
