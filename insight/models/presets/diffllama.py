"""Llama with differential attention."""

from __future__ import annotations

from insight.models.attention import DifferentialAttention
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import SwiGLU
from insight.models.norms import RMSNorm
from insight.models.presets.preset import Preset

DIFFLLAMA_1B = Preset(
    DecoderConfig(
        hidden_size=2048,
        num_layers=16,
        attention=DifferentialAttention(32, norm_eps=1e-5),
        feed_forward=SwiGLU(8192),
        norm=RMSNorm(eps=1e-5),
        max_sequence_length=2048,
    ),
    vocabulary_size=32000,
    source="Ye et al. 2024, arXiv 2410.05258, in the default sizes of transformers' DiffLlama",
)
