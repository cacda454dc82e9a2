"""Stops when the model learns its text by heart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from insight.runtime.errors import ConfigError
from insight.training.stopping.base import Criterion, History, Verdict
from insight.training.stopping.robust_line import theil_sen
from insight.training.stopping.trend_line import trend_line


@dataclass(frozen=True)
class GrowingGap(Criterion):
    """The distance from training to validation grows significantly while validation no longer falls.

    Both are judged by the robust line of Theil and Sen through the newest validations: the interval of the
    gap's slope lies above 0, and that of the validation's slope does not lie below 0.

    Args:
        num_validations: Validations that the lines go through.
        confidence: Coverage of the intervals.
    """

    num_validations: int = 6
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.num_validations < 4:
            raise ConfigError(
                f"num_validations={self.num_validations}: a trend needs at least 4 points", "use e.g. 6"
            )
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence={self.confidence}: must lie between 0 and 1", "use e.g. 0.95")

    def judge(self, history: History) -> Verdict:
        known = [v for v in history.validations if v.training_value is not None][-self.num_validations :]
        if len(known) < self.num_validations:
            return Verdict(False, f"{len(known)} of {self.num_validations} validations beside training")
        steps = np.array([validation.step for validation in known], dtype=float)
        values = np.array([validation.value for validation in known])
        training = np.array([validation.training_value for validation in known], dtype=float)
        gaps = values - training
        gap, value = theil_sen(steps, gaps, self.confidence), theil_sen(steps, values, self.confidence)
        growth = gap.value * (steps[-1] - steps[0])
        evidence = (
            f"over {self.num_validations} validations the gap to training grew by {growth:.4f} to "
            f"{gaps[-1]:.4f} ({'' if gap.low > 0 else 'not '}significantly), and validation "
            f"{'still falls' if value.high < 0 else 'does not fall significantly'}"
        )
        figures = {"gap": float(gaps[-1]), "growth": growth}
        lines = (
            trend_line("trend of validation", steps, values, value, until=steps[-1]),
            trend_line(
                "trend of training",
                steps,
                training,
                theil_sen(steps, training, self.confidence),
                until=steps[-1],
            ),
        )
        return Verdict(bool(gap.low > 0 and value.high >= 0), evidence, figures, lines)
