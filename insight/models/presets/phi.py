"""Phi-3 mini: Llama with a sliding window."""

from __future__ import annotations

from insight.models.attention import GroupedQueryAttention
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import SwiGLU
from insight.models.norms import RMSNorm
from insight.models.presets.preset import Preset

PHI3_MINI = Preset(
    DecoderConfig(
        hidden_size=3072,
        num_layers=32,
        attention=GroupedQueryAttention(32, window=2047),
        feed_forward=SwiGLU(8192),
        norm=RMSNorm(eps=1e-5),
        max_sequence_length=4096,
    ),
    vocabulary_size=32064,
    source="Abdin et al. 2024, arXiv 2404.14219",
)
