"""Feed-forward layers: gated, plain, mixtures of experts, and patterns of these."""

from insight.models.feed_forward.balance import BalanceBias, BalanceLoss, RouterBalance
from insight.models.feed_forward.base import FeedForward
from insight.models.feed_forward.gated import GeGLU, SwiGLU
from insight.models.feed_forward.gated_silu import gated_silu
from insight.models.feed_forward.mixture import MixtureOfExperts
from insight.models.feed_forward.pattern import FeedForwardPattern
from insight.models.feed_forward.plain import MLP, ReluSquared
from insight.models.feed_forward.routing import Router, RouterProjection

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
