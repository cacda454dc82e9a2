"""Feed-forward layers: gated and plain."""

from insight.models.feed_forward.base import FeedForward
from insight.models.feed_forward.gated import GeGLU, SwiGLU
from insight.models.feed_forward.gated_silu import gated_silu
from insight.models.feed_forward.plain import MLP, ReluSquared

__all__ = ["MLP", "FeedForward", "GeGLU", "ReluSquared", "SwiGLU", "gated_silu"]
