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
