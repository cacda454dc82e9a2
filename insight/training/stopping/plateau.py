"""Stops when a trend test finds no more progress."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from insight.runtime.errors import ConfigError
from insight.training.stopping.base import Criterion, History, Verdict
from insight.training.stopping.robust_line import theil_sen
from insight.training.stopping.trend_line import trend_line


@dataclass(frozen=True)
class Plateau(Criterion):
    """The newest validations no longer fall significantly.

    The slope of a robust line (Theil and Sen) through the last ``num_validations`` is taken with its
    confidence interval; training stops when even the steepest fall in it would gain less than ``min_gain``
    over as many validations again.

    Args:
        num_validations: Validations that the line goes through.
        min_gain: Least fall of the metric over the next ``num_validations`` that is worth going on for.
        confidence: Coverage of the interval.
    """

    num_validations: int = 8
    min_gain: float = 0.002
    confidence: float = 0.9

    def __post_init__(self) -> None:
        if self.num_validations < 4:
            raise ConfigError(
                f"num_validations={self.num_validations}: a trend needs at least 4 points", "use e.g. 8"
            )
        if not self.min_gain >= 0:
            raise ConfigError(f"min_gain={self.min_gain}: must not be negative", "use e.g. 0.002")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence={self.confidence}: must lie between 0 and 1", "use e.g. 0.9")

    def judge(self, history: History) -> Verdict:
        recent = history.validations[-self.num_validations :]
        if len(recent) < self.num_validations:
            return Verdict(False, f"{len(recent)} of {self.num_validations} validations for a trend")
        steps = np.array([validation.step for validation in recent], dtype=float)
        values = np.array([validation.value for validation in recent])
        slope = theil_sen(steps, values, self.confidence)
        span = steps[-1] - steps[0]
        likely, most = -slope.value * span, -slope.low * span
        evidence = (
            f"the last {self.num_validations} validations fall by {likely:.4f}, at most {most:.4f} "
            f"({self.confidence:.0%} interval); worth going on for: {self.min_gain:g}"
        )
        line = trend_line("trend", steps, values, slope, until=steps[-1] + span)
        return Verdict(most < self.min_gain, evidence, {"fall": likely, "most_fall": most}, (line,))
