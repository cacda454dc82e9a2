"""The gate: a model passes when it is sure, not only likely, that it lost no more than allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from insight.optimization.measurement import Quality, compare_quality
from insight.runtime.errors import ConfigError
from insight.runtime.statistics import Interval


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        passed: Whether the model may take the original's place.
        difference: Bits per byte that it needs more than the original, with a 95% interval.
        loss: ``difference`` as a share of the original's bits per byte.
        highest_loss: The same of the interval's upper end, which is what decides.
    """

    passed: bool
    difference: Interval
    loss: float
    highest_loss: float


def quality_gate(original: Quality, candidate: Quality, max_quality_loss: float, seed: int = 0) -> Verdict:
    """Compare a model with the original on the same text.

    Args:
        original: Of the model before.
        candidate: Of the model after, as it is executed.
        max_quality_loss: Share of the original's bits per byte that may be lost: 0.005 is half a percent.
        seed: Of the bootstrap behind the interval.

    Raises:
        ConfigError: The bound is negative or no number.
        DataError: They were measured on different text.
    """
    check_bound(max_quality_loss)
    difference = compare_quality(original, candidate, seed)
    reference = original.bits_per_byte
    highest = difference.high / reference
    return Verdict(highest <= max_quality_loss, difference, difference.value / reference, highest)


def check_bound(max_quality_loss: float) -> None:
    """Refuse a bound that no model could be held against.

    Raises:
        ConfigError: It is negative or no number.
    """
    if not (math.isfinite(max_quality_loss) and max_quality_loss >= 0):
        raise ConfigError(
            f"max_quality_loss={max_quality_loss}: must be a share of the bits per byte, 0 or more",
            "use 0.005 for half a percent",
        )
