"""What decoding keeps of the tokens it has seen: one file a kind of memory."""

from insight.models.caches.base import CacheStep, DecoderCache, LayerCache
from insight.models.caches.choice import make_layer_cache
from insight.models.caches.cross import CrossCache, Memory, ProjectMemory
from insight.models.caches.full import FullCache
from insight.models.caches.recurrent import RecurrentCache
from insight.models.caches.ring import RingCache

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
