"""Linear mixers: a state of constant size a head in place of keys and values, one file a kind."""

from insight.models.attention.linear.base import LinearMixer, LinearMixerModule
from insight.models.attention.linear.mixers import GatedDeltaNet, GatedLinearAttention, Retention
from insight.models.attention.linear.recurrence import Recurrence, mix_chunks, mix_token

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
