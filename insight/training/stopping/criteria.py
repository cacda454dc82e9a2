"""Criteria that judge the recent validations: patience, fixed bounds, trends, and the gap to training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import theilslopes

from insight.runtime.numbers import require_number
from insight.training.stopping.base import Advice, Criterion, EvidenceLine, History

_LEAST_POINTS_OF_A_TREND = 4


@dataclass(frozen=True)
class Patience(Criterion):
    """Training ends after a number of validations without improvement; NaN is not an improvement.

    Args:
        num_validations: Number of validations in a row without improvement after which training ends.
        min_delta: Least fall that counts as an improvement.
        relative: Whether ``min_delta`` is a share of the best value so far instead of a difference.
    """

    num_validations: int = 5
    min_delta: float = 0.0
    relative: bool = False

    def __post_init__(self) -> None:
        require_number("num_validations", self.num_validations, 5, whole=True, at_least=1)
        require_number("min_delta", self.min_delta, 0.001, at_least=0)

    def judge(self, history: History) -> Advice:
        best, waited, best_step = math.inf, 0, history.validations[0].step
        for validation in history.validations:
            needed = self.min_delta * abs(best) if self.relative else self.min_delta
            improves = validation.value < best - needed if math.isfinite(best) else validation.value < best
            if improves:
                best, waited, best_step = validation.value, 0, validation.step
            else:
                waited += 1
        stop, figures = waited >= self.num_validations, {"waited": float(waited)}
        if not math.isfinite(best):
            return Advice(stop, f"no number in {waited} validations", figures)
        evidence = f"no improvement on {best:.4f} in {waited} validations"
        line = EvidenceLine("best so far", (best_step, history.newest.step), (best, best))
        return Advice(stop, evidence, {"best": best, **figures}, (line,))


@dataclass(frozen=True)
class TargetReached(Criterion):
    """Training ends when the metric is good enough.

    Args:
        value: Value that the metric must reach or go below.
    """

    value: float

    def __post_init__(self) -> None:
        require_number("value", self.value, 1.5)

    def judge(self, history: History) -> Advice:
        newest = history.newest.value
        evidence = f"{newest:.4f}, target {self.value:g}"
        line = _flat("target", self.value, history)
        return Advice(newest <= self.value, evidence, {"target": self.value}, (line,))


@dataclass(frozen=True)
class Divergence(Criterion):
    """Training ends when the metric is NaN or infinite, or far above the best value so far.

    Args:
        factor: Multiple of the best value above which training has diverged.
    """

    factor: float = 1.5

    def __post_init__(self) -> None:
        require_number("factor", self.factor, 1.5, above=1)

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
    """Training ends after a number of training tokens.

    Args:
        num_tokens: Number of tokens of the whole run, over all processes.
    """

    num_tokens: int

    def __post_init__(self) -> None:
        require_number("num_tokens", self.num_tokens, 1_000_000_000, whole=True, at_least=1)

    def judge(self, history: History) -> Advice:
        seen = history.newest.num_tokens
        return Advice(seen >= self.num_tokens, f"{seen:,} of {self.num_tokens:,} tokens", {"tokens": seen})


@dataclass(frozen=True)
class DurationBudget(Criterion):
    """Training ends at the first validation after a number of hours.

    Unlike ``run.time_budget``, it does not plan the decay of the learning rate, so it is meant for schedules
    that do not depend on the length of the run. The time between an interruption and resuming does not count.

    Args:
        hours: Duration of the whole run in hours, validations included.
    """

    hours: float

    def __post_init__(self) -> None:
        require_number("hours", self.hours, 24, above=0)

    def judge(self, history: History) -> Advice:
        if history.newest.seconds is None:
            return Advice(False, "how long the run has taken is not known")
        hours = history.newest.seconds / 3600
        return Advice(hours >= self.hours, f"{hours:.3g} of {self.hours:g} hours", {"hours": hours})


@dataclass(frozen=True)
class Plateau(Criterion):
    """Training ends when the newest validations no longer fall significantly.

    A robust line (Theil and Sen) is fitted to the last ``num_validations``. Training ends when even the
    steepest fall in the confidence interval of its slope would gain less than ``min_gain`` over as many
    validations again.

    Args:
        num_validations: Number of validations that the line is fitted to.
        min_gain: Least fall of the metric over the next ``num_validations`` for which training continues.
        confidence: Coverage of the confidence interval.
    """

    num_validations: int = 8
    min_gain: float = 0.002
    confidence: float = 0.9

    def __post_init__(self) -> None:
        _check_trend(self.num_validations, self.confidence)
        require_number("min_gain", self.min_gain, 0.002, at_least=0)

    def judge(self, history: History) -> Advice:
        known = [each for each in history.validations if math.isfinite(each.value)][-self.num_validations :]
        if len(known) < self.num_validations:
            return Advice(False, f"{len(known)} of {self.num_validations} validations for a trend")
        steps = np.array([validation.step for validation in known], dtype=float)
        values = np.array([validation.value for validation in known])
        slope = theilslopes(values, steps, self.confidence)
        span = steps[-1] - steps[0]
        likely, most = float(-slope.slope * span), float(-slope.low_slope * span)
        evidence = (
            f"the last {self.num_validations} validations fall by {likely:.4f}, at most {most:.4f} "
            f"({self.confidence:.0%} interval); worth going on for: {self.min_gain:g}"
        )
        line = _trend("trend", steps, values, slope, until=steps[-1] + span)
        return Advice(most < self.min_gain, evidence, {"fall": likely, "most_fall": most}, (line,))


@dataclass(frozen=True)
class GrowingGap(Criterion):
    """Training ends when the gap from training to validation grows while validation no longer falls.

    Both are judged by robust lines (Theil and Sen) through the newest validations: the confidence interval of
    the gap's slope lies above 0, and that of the validation's slope does not lie below 0.

    Args:
        num_validations: Number of validations that the lines are fitted to.
        confidence: Coverage of the confidence intervals.
    """

    num_validations: int = 6
    confidence: float = 0.95

    def __post_init__(self) -> None:
        _check_trend(self.num_validations, self.confidence)

    def judge(self, history: History) -> Advice:
        finite = [each for each in history.validations if math.isfinite(each.value)]
        known = [
            (each.step, each.value, each.training_value)
            for each in finite
            if each.training_value is not None and math.isfinite(each.training_value)
        ][-self.num_validations :]
        if len(known) < self.num_validations:
            return Advice(False, f"{len(known)} of {self.num_validations} validations beside training")
        steps, values, training = (np.array(column, dtype=float) for column in zip(*known, strict=True))
        gaps = values - training
        gap, value = (theilslopes(y, steps, self.confidence) for y in (gaps, values))
        growth = float(gap.slope * (steps[-1] - steps[0]))
        evidence = (
            f"over {self.num_validations} validations the gap to training grew by {growth:.4f} to "
            f"{gaps[-1]:.4f} ({'' if gap.low_slope > 0 else 'not '}significantly), and validation "
            f"{'still falls' if value.high_slope < 0 else 'does not fall significantly'}"
        )
        figures = {"gap": float(gaps[-1]), "growth": growth}
        lines = (
            _trend("trend of validation", steps, values, value, until=steps[-1]),
            _trend(
                "trend of training",
                steps,
                training,
                theilslopes(training, steps, self.confidence),
                until=steps[-1],
            ),
        )
        return Advice(bool(gap.low_slope > 0 and value.high_slope >= 0), evidence, figures, lines)


def _check_trend(num_validations: int, confidence: float) -> None:
    require_number("num_validations", num_validations, 8, whole=True, at_least=_LEAST_POINTS_OF_A_TREND)
    require_number("confidence", confidence, 0.9, above=0, below=1)


def _flat(label: str, value: float, history: History) -> EvidenceLine:
    return EvidenceLine(label, (history.validations[0].step, history.newest.step), (value, value))


def _trend(label: str, x: np.ndarray, y: np.ndarray, slope: Any, until: float) -> EvidenceLine:
    """The line of a slope of ``theilslopes`` through the middle of the points, with its interval."""
    middle = float(np.median(x))
    height = float(np.median(y - slope.slope * (x - middle)))
    steps = np.array([x[0], middle, until])
    ends = np.array([height + value * (steps - middle) for value in (slope.low_slope, slope.high_slope)])
    return EvidenceLine(
        label,
        tuple(steps.tolist()),
        tuple((height + slope.slope * (steps - middle)).tolist()),
        tuple(ends.min(axis=0).tolist()),
        tuple(ends.max(axis=0).tolist()),
    )
