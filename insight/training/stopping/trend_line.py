"""A robust trend as a line to draw."""

from __future__ import annotations

import numpy as np

from insight.training.stopping.base import EvidenceLine
from insight.training.stopping.robust_line import Slope


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
