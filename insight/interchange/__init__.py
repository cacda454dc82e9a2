"""The name maps between the weights of other libraries and those of Insight."""

from insight.runtime.imports import lazy_exports

_MOVED = {
    "LoadedCheckpoint": "insight.checkpoints.LoadedCheckpoint",
    "differing_tensors": "insight.checkpoints.differing_tensors",
    "load_checkpoint": "insight.load_checkpoint",
    "load_weights_into": "insight.checkpoints.load_weights_into",
}
__getattr__, __all__ = lazy_exports(__name__, _MOVED)
