"""Weights in and out: checkpoints, and the name maps of other libraries."""

from insight.interchange.checkpoint import LoadedCheckpoint, load_checkpoint

__all__ = ["LoadedCheckpoint", "load_checkpoint"]
