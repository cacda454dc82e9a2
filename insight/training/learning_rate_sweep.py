"""A learning-rate range test: a short run whose learning rate grows exponentially."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from insight.training.schedules import ScheduleConfig

LOWEST, HIGHEST = 0.01, 100.0
"""Ends of a sweep, as multiples of the configured rates."""
# The window for slopes and means, as a share of the sweep.
_WINDOW_SHARE = 0.1
# The sweep has diverged if its loss is more than this many times the first one.
_DIVERGED = 1.2


@dataclass(frozen=True)
class ExponentialSweep(ScheduleConfig):
    """The rate grows by the same factor at each step (Smith 2015, arXiv 1506.01186, section 3.3).

    Args:
        lowest: Factor of the first step.
        highest: Factor of the last step.
    """

    lowest: float = LOWEST
    highest: float = HIGHEST

    def multiplier(self, step: int, num_steps: int) -> float:
        return float(self.lowest * (self.highest / self.lowest) ** (step / max(1, num_steps - 1)))


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep, in multiples of the configured learning rates.

    Args:
        steepest: Rate at which the loss fell fastest, which is the one to use; ``None`` if it never fell.
        lowest_loss: Rate at which the loss was lowest, ``None`` if it never fell; higher rates are too high.
        diverged: Rate at which the loss had diverged; ``None`` if it did not.
    """

    steepest: float | None
    lowest_loss: float | None
    diverged: float | None


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether the newest loss is NaN, or a fifth above the first."""
    return not losses[-1] <= _DIVERGED * losses[0]


def judge_sweep(multipliers: Sequence[float], losses: Sequence[float]) -> SweepResult:
    """Find the best, lowest-loss and diverging learning rates of a sweep, whose last loss may have diverged.

    Slopes are those of straight lines through a tenth of the sweep, against the logarithm of the rate.
    """
    diverged = float(multipliers[-1]) if has_diverged(losses) else None
    usable = np.array(losses[: len(losses) - 1] if diverged is not None else losses)
    reach = max(1, round(_WINDOW_SHARE * len(multipliers) / 2))
    middles = np.arange(reach, len(usable) - reach)
    if not len(middles):
        return SweepResult(None, None, diverged)
    offsets = np.arange(-reach, reach + 1)
    windows = usable[middles[:, None] + offsets]
    slopes = windows @ offsets / (offsets**2).sum()
    bottom = int(np.argmin(windows.mean(axis=1)))
    steepest = int(np.argmin(slopes[: bottom + 1]))
    falls = bool(slopes[steepest] < 0)
    return SweepResult(
        float(multipliers[middles[steepest]]) if falls else None,
        float(multipliers[middles[bottom]]) if falls else None,
        diverged,
    )
