"""Checkpoints, the saved states of a run: their format, writing, reading and resuming."""

from typing import TYPE_CHECKING

from insight.runtime.imports import lazy_exports

if TYPE_CHECKING:
    from insight.checkpoints.reader import LoadedCheckpoint as LoadedCheckpoint
    from insight.checkpoints.reader import LoadedTranslationModel as LoadedTranslationModel
    from insight.checkpoints.reader import differing_tensors as differing_tensors
    from insight.checkpoints.reader import load_checkpoint as load_checkpoint
    from insight.checkpoints.reader import load_weights_into as load_weights_into

__getattr__, __all__ = lazy_exports(__name__)
