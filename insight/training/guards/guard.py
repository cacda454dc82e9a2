"""The configuration of the guard against non-finite steps and loss spikes, and the score of a loss."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number

# The standard deviation of a normal distribution is its median absolute deviation times this.
_NORMAL_DEVIATIONS = 1.4826
# The least deviation, as a share of the median, for a loss that hardly moves.
_SMALLEST_DEVIATION = 1e-3


@dataclass(frozen=True)
class SpikeDetector(Component):
    """Finds losses far above the recent ones.

    The score of a loss is its distance above the median of the recent losses, in units of 1.4826 times
    their median absolute deviation (the modified z-score of Iglewicz and Hoaglin 1993, "How to Detect and
    Handle Outliers"). Up to half of the recent losses may be outliers without hiding the next one, and a
    permanently higher level is accepted once it makes up half of the window.

    Args:
        window: Number of losses that count as recent.
        min_losses: Number of losses needed before the first score.
        threshold: Score from which on a loss is a spike.
        action: ``log`` writes the batch's documents to ``suspicious_batches.jsonl`` in the run folder;
            ``skip`` also skips the step.
    """

    window: int = 128
    min_losses: int = 32
    threshold: float = 6.0
    action: Literal["log", "skip"] = "log"

    def __post_init__(self) -> None:
        require_number("min_losses", self.min_losses, 32, whole=True, at_least=2)
        require_number("window", self.window, 128, whole=True, at_least=self.min_losses)
        require_number("threshold", self.threshold, 6, above=0)
        if self.action not in ("log", "skip"):
            raise ConfigError("unknown action", "use log or skip", option="action", value=self.action)

    def score(self, loss: float, recent: Sequence[float]) -> float | None:
        """The score of a finite loss, given finite recent losses; ``None`` if there are too few of them."""
        if len(recent) < self.min_losses:
            return None
        median = statistics.median(recent)
        deviation = statistics.median(abs(each - median) for each in recent)
        unit = max(_NORMAL_DEVIATIONS * deviation, _SMALLEST_DEVIATION * abs(median)) or math.ulp(1.0)
        return (loss - median) / unit


_ACTIONS = ("stop", "skip", "roll_back")


@dataclass(frozen=True)
class Guard(Component):
    """The reaction to a step whose loss or gradient is NaN or infinite, or whose loss is a spike.

    A skipped step changes neither weights nor optimizer state, but data, step number, learning rate and the
    counters that a schedule-free optimizer keeps in its groups advance. All processes decide alike, since
    they judge the loss of the global batch and the norm of the whole gradient.

    Args:
        non_finite: ``stop`` ends the run with the step's number; ``skip`` skips the step; ``roll_back`` skips
            it too and, after ``num_in_a_row`` of them, restores weights and optimizer state of the last
            checkpoint from before. ``stop`` checks the gradient only if its norm is known, at steps that are
            logged or clipped by norm, and on an accelerator only at logged steps, since the check waits for
            the device; the others check every step.
        num_in_a_row: Number of successive skipped steps at which ``skip`` ends the run and ``roll_back``
            rolls back.
        spikes: The detector of losses far above the recent ones; null for none.
    """

    non_finite: Literal["stop", "skip", "roll_back"] = "stop"
    num_in_a_row: int = 5
    spikes: SpikeDetector | None = None

    def __post_init__(self) -> None:
        if self.non_finite not in _ACTIONS:
            raise ConfigError(
                "unknown action",
                f"use {', '.join(_ACTIONS)}",
                option="guard.non_finite",
                value=self.non_finite,
            )
        require_number("guard.num_in_a_row", self.num_in_a_row, 5, whole=True, at_least=1)

    @property
    def judges_every_step(self) -> bool:
        """Whether every step has to be checked before it is taken."""
        return self.non_finite != "stop" or self.spikes is not None
