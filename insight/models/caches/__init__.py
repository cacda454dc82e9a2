"""Caches: keys, values and states of earlier tokens, for decoding."""

from insight.models.caches.base import CacheShape as CacheShape
from insight.models.caches.base import CacheStep as CacheStep
from insight.models.caches.base import CrossCache as CrossCache
from insight.models.caches.base import DecoderCache as DecoderCache
from insight.models.caches.base import EncoderStates as EncoderStates
from insight.models.caches.base import LayerCache as LayerCache
from insight.models.caches.base import ProjectStates as ProjectStates
from insight.models.caches.beams import BeamCache as BeamCache
from insight.models.caches.beams import BeamLayerCache as BeamLayerCache
from insight.models.caches.buffers import FullCache as FullCache
from insight.models.caches.buffers import RingCache as RingCache
from insight.models.caches.buffers import make_layer_cache as make_layer_cache
from insight.models.caches.recurrent import RecurrentCache as RecurrentCache
from insight.models.caches.trees import BeamTree as BeamTree
