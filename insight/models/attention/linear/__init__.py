"""Linear mixers: a state of constant size a head in place of keys and values, one file a kind."""

from insight.models.attention.linear.base import LinearMixer, LinearMixerModule
from insight.models.attention.linear.chunks import mix_chunks
from insight.models.attention.linear.gated_delta_net import GatedDeltaNet
from insight.models.attention.linear.gated_linear_attention import GatedLinearAttention
from insight.models.attention.linear.recurrence import Recurrence, mix_token
from insight.models.attention.linear.retention import Retention

__all__ = [
    "GatedDeltaNet",
    "GatedLinearAttention",
    "LinearMixer",
    "LinearMixerModule",
    "Recurrence",
    "Retention",
    "mix_chunks",
    "mix_token",
]
