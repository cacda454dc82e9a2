"""Guards keep a bad batch from ruining a run: they skip steps, roll back, and detect loss spikes."""

from insight.training.guards.guard import Guard, SpikeDetector
from insight.training.guards.step_guard import StepGuard

__all__ = ["Guard", "SpikeDetector", "StepGuard"]
