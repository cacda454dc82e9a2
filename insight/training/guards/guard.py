"""The choice of what happens at a step that looks wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError
from insight.training.guards.spikes import SpikeDetector

_ACTIONS = ("stop", "skip", "roll_back")


@dataclass(frozen=True)
class Guard(Component):
    """What happens at a step whose loss or gradient is no number, or whose loss is far above the recent ones.

    A step that is left out changes neither weights nor optimizer state; the data, the step's number and the
    learning rate go on, and so do counters that a schedule-free optimizer keeps in its groups. All processes
    come to the same verdict, since they judge the loss of the global batch and the norm of the whole
    gradient.

    Args:
        non_finite: ``stop`` ends the run with the step's number; ``skip`` leaves the step out; ``roll_back``
            leaves it out too and, after ``num_in_a_row`` of them, puts back the weights and the optimizer
            state of the last checkpoint from before. ``stop`` looks at the gradient only where its norm is
            known, at steps that are logged or clipped by norm, and on an accelerator only at steps that
            are logged, since looking waits for the device; the others look at every step.
        num_in_a_row: Steps left out one after the other at which ``skip`` ends the run and ``roll_back``
            goes back.
        spikes: Looks for losses far above the recent ones; null does not.
    """

    non_finite: Literal["stop", "skip", "roll_back"] = "stop"
    num_in_a_row: int = 5
    spikes: SpikeDetector | None = None

    def __post_init__(self) -> None:
        if self.non_finite not in _ACTIONS:
            raise ConfigError(
                f"guard.non_finite={self.non_finite!r}: unknown action", f"use {', '.join(_ACTIONS)}"
            )
        if self.num_in_a_row < 1:
            raise ConfigError(f"guard.num_in_a_row={self.num_in_a_row}: must be at least 1", "use 5")

    @property
    def judges_every_step(self) -> bool:
        """Whether every step has to be looked at before it is taken."""
        return self.non_finite != "stop" or self.spikes is not None
