"""What decoding keeps of the tokens it has seen: one file a kind of memory."""

from insight.models.caches.base import DecoderCache, LayerCache
from insight.models.caches.full import FullCache

__all__ = ["DecoderCache", "FullCache", "LayerCache"]
