"""A criterion that extrapolates the validations to the end of the run by a power law."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from insight.runtime.numbers import require_number
from insight.training.stopping.base import Advice, Criterion, EvidenceLine, History

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
        require_number(
            "num_steps", self.num_steps, "null for the plan", whole=True, optional=True, at_least=1
        )
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
        now, end = float(steps[-1]), float(max(stop_at, steps[-1]))
        gain = float(curve.at(now) - curve.at(end))
        fitted = curve.at(steps)
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
        lines = self._lines(curve, others, np.linspace(steps[0], end, _DRAWN_POINTS))
        return Advice(max(gain, most) < self.min_gain, evidence, figures, lines)

    def _lines(
        self, curve: PowerLaw, others: list[PowerLaw], steps: np.ndarray
    ) -> tuple[EvidenceLine, EvidenceLine]:
        """The curve up to the end of the run with its interval, and its floor."""
        drawn = np.array([other.at(steps) for other in others])
        ends = np.quantile(drawn, [0.5 - self.confidence / 2, 0.5 + self.confidence / 2], axis=0)
        low, high = (tuple(end.tolist()) for end in ends)
        points = tuple(steps.tolist())
        return (
            EvidenceLine("power law", points, tuple(curve.at(steps).tolist()), low, high),
            EvidenceLine("its floor", (points[0], points[-1]), (curve.floor, curve.floor)),
        )
