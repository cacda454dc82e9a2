"""The history of validations, the advice of a criterion, and combinations of criteria."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from scipy.stats import theilslopes

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number


@dataclass(frozen=True)
class Validation:
    """The value of the metric, of which smaller is better, after so many steps and training tokens."""

    step: int
    num_tokens: int
    value: float
    training_value: float | None = None  # on the training text since the last validation, if it was logged
    seconds: float | None = None  # of the run, without the time between an interruption and resuming


@dataclass(frozen=True)
class History:
    """All validations so far, the oldest first, and the planned length of the run, if it is known."""

    validations: tuple[Validation, ...]
    num_planned_steps: int | None = None

    @property
    def newest(self) -> Validation:
        """The last validation."""
        return self.validations[-1]


@dataclass(frozen=True)
class EvidenceLine:
    """A line that supports an advice, to be drawn beside the validations."""

    label: str
    steps: tuple[float, ...]  # the last may lie beyond the newest validation
    values: tuple[float, ...]
    low: tuple[float, ...] = ()  # the interval around the line; empty without one
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Advice:
    """Whether training should end, and the evidence: a sentence, its numbers, and lines for the report."""

    stop: bool
    evidence: str
    figures: dict[str, float] = field(default_factory=dict)
    lines: tuple[EvidenceLine, ...] = ()
    parts: tuple[Advice, ...] = ()  # of each criterion, if several were combined


@dataclass(frozen=True)
class Criterion(Component):
    """A reason to stop. It is stateless: equal histories give equal advice, also after resuming."""

    @abstractmethod
    def judge(self, history: History) -> Advice:
        """Give the advice for ``history``, which is never empty."""


@dataclass(frozen=True)
class _Several(Criterion):
    """The base of combined criteria."""

    criteria: tuple[Criterion, ...] = ()

    _combine: ClassVar[Callable[[Iterable[object]], bool]]

    def __post_init__(self) -> None:
        if not self.criteria:
            remedy = "name at least one criterion"
            raise ConfigError("there is nothing to judge by", remedy, option="criteria", value=[])

    def judge(self, history: History) -> Advice:
        answers = [criterion.judge(history) for criterion in self.criteria]
        stop = type(self)._combine(advice.stop for advice in answers)
        # The evidence for stopping is only that of criteria that advise to stop.
        evidence = "; ".join(advice.evidence for advice in answers if advice.stop or not stop)
        figures = {name: value for advice in answers for name, value in advice.figures.items()}
        return Advice(stop, evidence, figures, parts=tuple(answers))


@dataclass(frozen=True)
class AnyOf(_Several):
    """Training ends when any of the criteria says so.

    Args:
        criteria: The criteria, which are asked in this order.
    """

    _combine = any


@dataclass(frozen=True)
class AllOf(_Several):
    """Training ends when all of the criteria say so.

    Args:
        criteria: The criteria, which are asked in this order.
    """

    _combine = all


def single_advice(criterion: Criterion, advice: Advice) -> list[tuple[Criterion, Advice]]:
    """The parts of the ``advice`` of a possibly combined criterion, each with its own criterion."""
    if not isinstance(criterion, _Several):
        return [(criterion, advice)]
    pairs = zip(criterion.criteria, advice.parts, strict=True)
    return [single for part, answer in pairs for single in single_advice(part, answer)]


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
            needed = 0.0
            if math.isfinite(best):
                needed = self.min_delta * abs(best) if self.relative else self.min_delta
            if validation.value < best - needed:
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
        points = [(each.step, each.value, each.training_value) for each in history.validations]
        table = np.array(points, dtype=float)  # None becomes NaN
        known = table[np.isfinite(table).all(axis=1)][-self.num_validations :]
        if len(known) < self.num_validations:
            return Advice(False, f"{len(known)} of {self.num_validations} validations beside training")
        steps, values, training = known.T
        gaps = values - training
        gap, value = (theilslopes(y, steps, self.confidence) for y in (gaps, values))
        growth = float(gap.slope * (steps[-1] - steps[0]))
        evidence = (
            f"over {self.num_validations} validations the gap to training grew by {growth:.4f} to "
            f"{gaps[-1]:.4f} ({'' if gap.low_slope > 0 else 'not '}significantly), and validation "
            f"{'still falls' if value.high_slope < 0 else 'does not fall significantly'}"
        )
        figures = {"gap": float(gaps[-1]), "growth": growth}
        slope = theilslopes(training, steps, self.confidence)
        lines = (
            _trend("trend of validation", steps, values, value, until=steps[-1]),
            _trend("trend of training", steps, training, slope, until=steps[-1]),
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


# The grid of exponents; those of language models lie between 0.05 and 1 (Kaplan et al. 2020).
_EXPONENTS = np.geomspace(0.02, 3.0, 120)


@dataclass(frozen=True)
class PowerLaw:
    """``floor + scale * x ** -exponent``, as in Hoffmann et al. 2022 (arXiv 2203.15556, section 3.3)."""

    floor: float
    scale: float
    exponent: float

    def at(self, x: np.ndarray | float) -> np.ndarray:
        """The curve at ``x``."""
        return self.floor + self.scale * np.asarray(x, dtype=float) ** -self.exponent


def fit_power_law(x: np.ndarray, y: np.ndarray) -> PowerLaw:
    """The least-squares power law with floor and scale of at least 0.

    For each exponent of a grid, floor and scale are fitted in closed form; the best exponent is then refined
    between its neighbours. All ``x`` must be above 0.
    """
    best = int(np.argmin(_linear_fits(x, y, _EXPONENTS)[0]))
    between = np.geomspace(_EXPONENTS[max(0, best - 1)], _EXPONENTS[min(len(_EXPONENTS) - 1, best + 1)], 60)
    errors, floors, scales = _linear_fits(x, y, between)
    best = int(np.argmin(errors))
    return PowerLaw(float(floors[best]), float(scales[best]), float(between[best]))


def _linear_fits(
    x: np.ndarray, y: np.ndarray, exponents: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum of squares, floor and scale for every exponent, each ``(exponents,)``."""
    basis = x ** -exponents[:, None]
    middle = basis.mean(axis=1)
    centred = basis - middle[:, None]
    spread = np.maximum((centred**2).sum(axis=1), np.finfo(float).tiny)
    scales = np.maximum(0.0, centred @ y / spread)
    floors = y.mean() - scales * middle
    below = floors < 0
    scales = np.where(below, np.maximum(0.0, basis @ y / (basis**2).sum(axis=1)), scales)
    floors = np.where(below, 0.0, floors)
    rest = y - floors[:, None] - scales[:, None] * basis
    return (rest**2).sum(axis=1), floors, scales


_NUM_RESAMPLES = 100
# The first validations belong to the warm-up, not to the power law.
_LEFT_OUT_SHARE = 0.2
_DRAWN_POINTS = 60


@dataclass(frozen=True)
class ExpectedGain(Criterion):
    """Training ends when a power law predicts a gain below ``min_gain`` for the rest of the run.

    A power law with a floor is fitted to the validations. The confidence interval of the gain comes from
    fits to resampled residuals (bootstrap, Efron 1979) with a fixed seed; training ends when its upper end is
    below ``min_gain``. A later decay of the learning rate gains more than the curve predicts, so use this
    with a constant schedule or for the stable phase.

    Args:
        min_gain: Least fall of the metric until the end of the run for which training continues.
        num_steps: Number of optimizer steps of the run; ``None`` for the plan of the Trainer.
        min_validations: Number of validations needed for a fit.
        confidence: Coverage of the confidence interval of the gain.
    """

    min_gain: float = 0.005
    num_steps: int | None = None
    min_validations: int = 8
    confidence: float = 0.9

    def __post_init__(self) -> None:
        require_number("min_gain", self.min_gain, 0.005, above=0)
        # A curve with three parameters needs more than three points.
        require_number("min_validations", self.min_validations, 8, whole=True, at_least=5)
        plan = "null for the plan"
        require_number("num_steps", self.num_steps, plan, whole=True, optional=True, at_least=1)
        require_number("confidence", self.confidence, 0.9, above=0, below=1)

    def judge(self, history: History) -> Advice:
        stop_at = self.num_steps or history.num_planned_steps
        if stop_at is None:
            return Advice(False, "no number of steps is planned, so nothing can be drawn on to the end")
        known = [v for v in history.validations if v.step > 0 and np.isfinite(v.value)]
        if len(known) < self.min_validations:
            return Advice(False, f"{len(known)} of {self.min_validations} validations for a curve")
        known = known[int(len(known) * _LEFT_OUT_SHARE) :]
        steps = np.array([validation.step for validation in known], dtype=float)
        values = np.array([validation.value for validation in known])
        curve = fit_power_law(steps, values)
        fitted = curve.at(steps)
        now, end = float(steps[-1]), float(max(stop_at, steps[-1]))
        gain = float(curve.at(now) - curve.at(end))
        # Residuals after fitting three parameters are too small by this factor.
        rest = (values - fitted) * np.sqrt(len(values) / max(1, len(values) - 3))
        generator = np.random.default_rng(0)
        others = [
            fit_power_law(steps, fitted + generator.choice(rest, len(rest))) for _ in range(_NUM_RESAMPLES)
        ]
        gains = [float(other.at(now) - other.at(end)) for other in others]
        most = float(np.quantile(gains, 0.5 + self.confidence / 2))
        evidence = (
            f"until step {int(end):,} the curve still gains {gain:.4f}, at most {most:.4f} "
            f"({self.confidence:.0%} interval), towards a floor of {curve.floor:.4f}; worth going on for: "
            f"{self.min_gain:g}"
        )
        figures = {"gain": gain, "most_gain": most, "floor": curve.floor, "exponent": curve.exponent}
        # The curve up to the end of the run with its interval, and its floor.
        drawn = np.linspace(steps[0], end, _DRAWN_POINTS)
        ends = [0.5 - self.confidence / 2, 0.5 + self.confidence / 2]
        interval = np.quantile([other.at(drawn) for other in others], ends, axis=0)
        points, fit, low, high = (tuple(row.tolist()) for row in (drawn, curve.at(drawn), *interval))
        floor = EvidenceLine("its floor", (points[0], points[-1]), (curve.floor, curve.floor))
        lines = (EvidenceLine("power law", points, fit, low, high), floor)
        return Advice(max(gain, most) < self.min_gain, evidence, figures, lines)
