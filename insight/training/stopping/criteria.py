"""Criteria that judge the recent validations: patience, fixed marks, trends, and the gap to training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from insight.runtime.errors import ConfigError
from insight.training.stopping.base import Advice, Criterion, EvidenceLine, History


@dataclass(frozen=True)
class Slope:
    """The slope of a line and the interval that holds it.

    Args:
        value: Median of the slopes of all pairs of points.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def theil_sen(x: np.ndarray, y: np.ndarray, confidence: float = 0.95) -> Slope:
    """The slope of Theil and Sen with Sen's interval (Sen 1968, JASA 63:1379), ties in ``y`` included.

    Up to 29% of the points may lie anywhere. The interval comes from the distribution of Kendall's statistic
    in its normal approximation.

    Args:
        x: ``(points,)``, at least three different ones.
        y: ``(points,)``.
        confidence: Coverage of the interval.
    """
    first, second = np.triu_indices(len(x), k=1)
    apart = x[second] != x[first]
    first, second = first[apart], second[apart]
    slopes = np.sort((y[second] - y[first]) / (x[second] - x[first]))
    variance = _kendall_variance(x, y)
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * np.sqrt(variance)
    count = len(slopes)
    low = int(np.round((count - half) / 2)) - 1
    high = int(np.round((count + half) / 2))
    return Slope(float(np.median(slopes)), float(slopes[max(0, low)]), float(slopes[min(count - 1, high)]))


def _kendall_variance(x: np.ndarray, y: np.ndarray) -> float:
    def tied(values: np.ndarray) -> float:
        sizes = np.unique(values, return_counts=True)[1]
        return float(np.sum(sizes * (sizes - 1) * (2 * sizes + 5)))

    n = len(x)
    return (n * (n - 1) * (2 * n + 5) - tied(x) - tied(y)) / 18


def trend_line(label: str, x: np.ndarray, y: np.ndarray, slope: Slope, until: float) -> EvidenceLine:
    """The line with this slope through the middle of the points, and those with the ends of its interval.

    Args:
        label: What it is the trend of.
        x: ``(points,)``, ascending.
        y: ``(points,)``.
        slope: Of the points, with its interval.
        until: Where the line ends.
    """
    middle = float(np.median(x))
    height = float(np.median(y - slope.value * (x - middle)))
    steps = np.array([x[0], middle, until])
    ends = np.array([height + value * (steps - middle) for value in (slope.low, slope.high)])
    return EvidenceLine(
        label,
        tuple(steps.tolist()),
        tuple((height + slope.value * (steps - middle)).tolist()),
        tuple(ends.min(axis=0).tolist()),
        tuple(ends.max(axis=0).tolist()),
    )


@dataclass(frozen=True)
class Patience(Criterion):
    """So many validations in a row brought no improvement.

    Args:
        num_validations: Validations without improvement before training ends.
        min_delta: Least fall that counts as an improvement.
        relative: Whether ``min_delta`` is a share of the best value so far instead of a difference.
    """

    num_validations: int = 5
    min_delta: float = 0.0
    relative: bool = False

    def __post_init__(self) -> None:
        if self.num_validations < 1:
            raise ConfigError(
                f"num_validations={self.num_validations}: patience counts validations", "use at least 1"
            )
        if not self.min_delta >= 0:
            raise ConfigError(f"min_delta={self.min_delta}: must not be negative", "use e.g. 0.001")

    def judge(self, history: History) -> Advice:
        best, waited, best_step = float("inf"), 0, history.validations[0].step
        for validation in history.validations:
            needed = self.min_delta * abs(best) if self.relative and best != float("inf") else self.min_delta
            if validation.value < best - needed or best == float("inf"):
                best, waited, best_step = validation.value, 0, validation.step
            else:
                waited += 1
        evidence = f"no improvement on {best:.4f} in {waited} validations"
        line = EvidenceLine("best so far", (best_step, history.newest.step), (best, best))
        return Advice(waited >= self.num_validations, evidence, {"best": best, "waited": waited}, (line,))


@dataclass(frozen=True)
class TargetReached(Criterion):
    """The metric is good enough.

    Args:
        value: Training ends as soon as the metric is at most this.
    """

    value: float

    def judge(self, history: History) -> Advice:
        newest = history.newest.value
        evidence = f"{newest:.4f}, target {self.value:g}"
        line = _flat("target", self.value, history)
        return Advice(newest <= self.value, evidence, {"target": self.value}, (line,))


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

    def judge(self, history: History) -> Advice:
        values = [validation.value for validation in history.validations]
        if not math.isfinite(values[-1]):
            return Advice(True, f"the metric is {values[-1]}")
        best = min(value for value in values if math.isfinite(value))
        bound = best + (self.factor - 1) * abs(best)
        evidence = f"{values[-1]:.4f}, beyond hope above {bound:.4f}"
        line = _flat("beyond hope", bound, history)
        return Advice(values[-1] > bound, evidence, {"bound": bound}, (line,))


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

    def judge(self, history: History) -> Advice:
        seen = history.newest.num_tokens
        return Advice(seen >= self.num_tokens, f"{seen:,} of {self.num_tokens:,} tokens", {"tokens": seen})


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

    def judge(self, history: History) -> Advice:
        if history.newest.seconds is None:
            return Advice(False, "how long the run has taken is not known")
        hours = history.newest.seconds / 3600
        return Advice(hours >= self.hours, f"{hours:.3g} of {self.hours:g} hours", {"hours": hours})


def _flat(label: str, value: float, history: History) -> EvidenceLine:
    return EvidenceLine(label, (history.validations[0].step, history.newest.step), (value, value))


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

    def judge(self, history: History) -> Advice:
        recent = history.validations[-self.num_validations :]
        if len(recent) < self.num_validations:
            return Advice(False, f"{len(recent)} of {self.num_validations} validations for a trend")
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
        return Advice(most < self.min_gain, evidence, {"fall": likely, "most_fall": most}, (line,))


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

    def judge(self, history: History) -> Advice:
        known = [v for v in history.validations if v.training_value is not None][-self.num_validations :]
        if len(known) < self.num_validations:
            return Advice(False, f"{len(known)} of {self.num_validations} validations beside training")
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
        return Advice(bool(gap.low > 0 and value.high >= 0), evidence, figures, lines)
