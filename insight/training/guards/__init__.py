"""Guards keep a bad batch from ruining a run: they leave steps out, roll back, and notice outlying losses."""

from insight.training.guards.guard import Guard, SpikeDetector
from insight.training.guards.step_guard import StepGuard

__all__ = ["Guard", "SpikeDetector", "StepGuard"]
