"""What a saved state of a run is: its format, and how it is read, written, kept and resumed."""

from insight.checkpoints.reader import (
    LoadedCheckpoint,
    differing_tensors,
    load_checkpoint,
    load_weights_into,
)

__all__ = ["LoadedCheckpoint", "differing_tensors", "load_checkpoint", "load_weights_into"]
