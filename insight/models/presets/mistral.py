"""Mistral: Llama with a sliding window in every layer."""

from __future__ import annotations

from insight.models.attention import GroupedQueryAttention
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import SwiGLU
from insight.models.norms import RMSNorm
from insight.models.presets.preset import Preset

MISTRAL_7B = Preset(
    DecoderConfig(
        hidden_size=4096,
        num_layers=32,
        attention=GroupedQueryAttention(32, 8, window=4096),
        feed_forward=SwiGLU(14336),
        norm=RMSNorm(eps=1e-5),
        max_sequence_length=32768,
    ),
    vocabulary_size=32000,
    source="Jiang et al. 2023, arXiv 2310.06825",
)
