"""Feed-forward layers: gated, plain, mixtures of experts, and patterns of these."""

from insight.models.feed_forward.dense import MLP as MLP
from insight.models.feed_forward.dense import FeedForward as FeedForward
from insight.models.feed_forward.dense import FeedForwardPattern as FeedForwardPattern
from insight.models.feed_forward.dense import GeGLU as GeGLU
from insight.models.feed_forward.dense import ReluSquared as ReluSquared
from insight.models.feed_forward.dense import SwiGLU as SwiGLU
from insight.models.feed_forward.dense import gated_silu as gated_silu
from insight.models.feed_forward.mixture import BalanceBias as BalanceBias
from insight.models.feed_forward.mixture import BalanceLoss as BalanceLoss
from insight.models.feed_forward.mixture import MixtureOfExperts as MixtureOfExperts
from insight.models.feed_forward.mixture import Router as Router
from insight.models.feed_forward.mixture import RouterBalance as RouterBalance
from insight.models.feed_forward.mixture import RouterProjection as RouterProjection
