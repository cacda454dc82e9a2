"""Linear mixers: each head keeps a state of constant size in place of keys and values."""

from insight.models.attention.linear.base import LinearMixer as LinearMixer
from insight.models.attention.linear.base import LinearMixerModule as LinearMixerModule
from insight.models.attention.linear.mixers import GatedDeltaNet as GatedDeltaNet
from insight.models.attention.linear.mixers import GatedLinearAttention as GatedLinearAttention
from insight.models.attention.linear.mixers import Retention as Retention
from insight.models.attention.linear.recurrence import Recurrence as Recurrence
from insight.models.attention.linear.recurrence import mix_chunks as mix_chunks
from insight.models.attention.linear.recurrence import mix_token as mix_token
