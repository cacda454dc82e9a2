"""What decoding keeps of the tokens that it has seen."""

from insight.models.caches.base import (
    CacheStep,
    CrossCache,
    DecoderCache,
    EncoderStates,
    LayerCache,
    ProjectStates,
)
from insight.models.caches.buffers import FullCache, RingCache, make_layer_cache
from insight.models.caches.recurrent import RecurrentCache

__all__ = [
    "CacheStep",
    "CrossCache",
    "DecoderCache",
    "EncoderStates",
    "FullCache",
    "LayerCache",
    "ProjectStates",
    "RecurrentCache",
    "RingCache",
    "make_layer_cache",
]
