"""A curve that falls towards a floor as a power of the steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Exponents that are tried; learning curves of language models lie between 0.05 and 1 (Kaplan et al. 2020).
_EXPONENTS = np.geomspace(0.02, 3.0, 120)


@dataclass(frozen=True)
class PowerLaw:
    """``floor + scale * x ** -exponent``, as in Hoffmann et al. 2022 (arXiv 2203.15556, section 3.3).

    Args:
        floor: What it falls to.
        scale: How far above that it is at x = 1.
        exponent: How fast it falls.
    """

    floor: float
    scale: float
    exponent: float

    def at(self, x: np.ndarray | float) -> np.ndarray:
        """The curve at ``x``."""
        return self.floor + self.scale * np.asarray(x, dtype=float) ** -self.exponent


def fit_power_law(x: np.ndarray, y: np.ndarray) -> PowerLaw:
    """The curve with the least sum of squares, floor and scale not below 0.

    For each exponent of a grid, floor and scale are a linear fit in closed form; the best exponent is then
    refined between its neighbours.

    Args:
        x: ``(points,)``, above 0.
        y: ``(points,)``.
    """
    errors = [_linear_fit(x, y, exponent)[0] for exponent in _EXPONENTS]
    best = int(np.argmin(errors))
    between = np.geomspace(_EXPONENTS[max(0, best - 1)], _EXPONENTS[min(len(_EXPONENTS) - 1, best + 1)], 60)
    exponent = min(between, key=lambda e: _linear_fit(x, y, e)[0])
    _, floor, scale = _linear_fit(x, y, exponent)
    return PowerLaw(floor, scale, float(exponent))


def _linear_fit(x: np.ndarray, y: np.ndarray, exponent: float) -> tuple[float, float, float]:
    """Sum of squares, floor, scale."""
    basis = x**-exponent
    centred = basis - basis.mean()
    spread = float(centred @ centred)
    scale = max(0.0, float(centred @ y) / spread) if spread > 0 else 0.0
    floor = float(y.mean() - scale * basis.mean())
    if floor < 0:
        floor, scale = 0.0, max(0.0, float(basis @ y) / float(basis @ basis))
    rest = y - floor - scale * basis
    return float(rest @ rest), floor, scale
