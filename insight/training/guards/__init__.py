"""What keeps a bad batch from ruining a run: steps left out, weights put back, losses far off noticed."""

from insight.training.guards.guard import Guard, SpikeDetector
from insight.training.guards.step_guard import StepGuard

__all__ = ["Guard", "SpikeDetector", "StepGuard"]
