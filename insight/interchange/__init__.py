"""Models of other libraries: reading and writing them, and the maps between names of weights."""

from insight.runtime.imports import lazy_exports

_MOVED = {
    "LoadedCheckpoint": "insight.checkpoints.LoadedCheckpoint",
    "differing_tensors": "insight.checkpoints.differing_tensors",
    "load_checkpoint": "insight.load_checkpoint",
    "load_weights_into": "insight.checkpoints.load_weights_into",
}
__getattr__, __all__ = lazy_exports(__name__, _MOVED)
