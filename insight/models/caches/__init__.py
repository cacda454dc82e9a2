"""What decoding keeps of the tokens it has seen: one file a kind of memory."""

from insight.models.caches.base import CacheStep, DecoderCache, LayerCache
from insight.models.caches.choice import make_layer_cache
from insight.models.caches.full import FullCache
from insight.models.caches.ring import RingCache

__all__ = ["CacheStep", "DecoderCache", "FullCache", "LayerCache", "RingCache", "make_layer_cache"]
