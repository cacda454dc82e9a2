"""What decoding keeps of the tokens it has seen: one file a kind of memory."""

from insight.models.caches.base import CacheStep, CrossCache, DecoderCache, LayerCache, Memory, ProjectMemory
from insight.models.caches.buffers import FullCache, RingCache, make_layer_cache
from insight.models.caches.recurrent import RecurrentCache

__all__ = [
    "CacheStep",
    "CrossCache",
    "DecoderCache",
    "FullCache",
    "LayerCache",
    "Memory",
    "ProjectMemory",
    "RecurrentCache",
    "RingCache",
    "make_layer_cache",
]
