"""A straight line through noisy points that no single point can turn."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


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
