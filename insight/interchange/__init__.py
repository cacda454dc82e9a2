"""Weights in and out: checkpoints, and the name maps of other libraries."""

from insight.interchange.checkpoint import (
    LoadedCheckpoint,
    differing_tensors,
    load_checkpoint,
    load_weights_into,
)

__all__ = ["LoadedCheckpoint", "differing_tensors", "load_checkpoint", "load_weights_into"]
