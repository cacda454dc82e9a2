"""Feed-forward layers: gated, plain, mixtures of experts, and patterns of these."""

from insight.models.feed_forward.dense import (
    MLP,
    FeedForward,
    FeedForwardPattern,
    GeGLU,
    ReluSquared,
    SwiGLU,
    gated_silu,
)
from insight.models.feed_forward.mixture import MixtureOfExperts
from insight.models.feed_forward.routing import (
    BalanceBias,
    BalanceLoss,
    Router,
    RouterBalance,
    RouterProjection,
)

__all__ = [
    "MLP",
    "BalanceBias",
    "BalanceLoss",
    "FeedForward",
    "FeedForwardPattern",
    "GeGLU",
    "MixtureOfExperts",
    "ReluSquared",
    "Router",
    "RouterBalance",
    "RouterProjection",
    "SwiGLU",
    "gated_silu",
]
