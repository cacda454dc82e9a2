"""SmolLM 3: Llama in which every fourth layer has no positions."""

from __future__ import annotations

from dataclasses import replace

from insight.models.attention import GroupedQueryAttention, LayerPattern
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import SwiGLU
from insight.models.norms import RMSNorm
from insight.models.positions import NoPosition, Rope
from insight.models.presets.preset import Preset

_ROTARY = GroupedQueryAttention(16, 4, position=Rope(5000000.0))

SMOLLM3_3B = Preset(
    DecoderConfig(
        hidden_size=2048,
        num_layers=36,
        attention=LayerPattern((*3 * (_ROTARY,), replace(_ROTARY, position=NoPosition()))),
        feed_forward=SwiGLU(11008),
        norm=RMSNorm(eps=1e-6),
        max_sequence_length=65536,
        tie_embeddings=True,
    ),
    vocabulary_size=128256,
    source="Bakouch et al. 2025, SmolLM3 (Hugging Face)",
)
