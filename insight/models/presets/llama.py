"""Llama 2 and 3, and SmolLM 2 of the same architecture."""

from __future__ import annotations

from insight.models.attention import GroupedQueryAttention
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import SwiGLU
from insight.models.norms import RMSNorm
from insight.models.positions import Llama3Scaling, Rope
from insight.models.presets.preset import Preset

LLAMA2_7B = Preset(
    DecoderConfig(
        hidden_size=4096,
        num_layers=32,
        attention=GroupedQueryAttention(32),
        feed_forward=SwiGLU(11008),
        norm=RMSNorm(eps=1e-5),
        max_sequence_length=4096,
    ),
    vocabulary_size=32000,
    source="Touvron et al. 2023, arXiv 2307.09288",
)

LLAMA31_8B = Preset(
    DecoderConfig(
        hidden_size=4096,
        num_layers=32,
        attention=GroupedQueryAttention(32, 8, position=Rope(500000.0, scaling=Llama3Scaling(factor=8.0))),
        feed_forward=SwiGLU(14336),
        norm=RMSNorm(eps=1e-5),
        max_sequence_length=131072,
    ),
    vocabulary_size=128256,
    source="Grattafiori et al. 2024, arXiv 2407.21783",
)

LLAMA32_1B = Preset(
    DecoderConfig(
        hidden_size=2048,
        num_layers=16,
        attention=GroupedQueryAttention(32, 8, position=Rope(500000.0, scaling=Llama3Scaling(factor=32.0))),
        feed_forward=SwiGLU(8192),
        norm=RMSNorm(eps=1e-5),
        max_sequence_length=131072,
        tie_embeddings=True,
    ),
    vocabulary_size=128256,
    source="Meta 2024, Llama 3.2 model card",
)

SMOLLM2_135M = Preset(
    DecoderConfig(
        hidden_size=576,
        num_layers=30,
        attention=GroupedQueryAttention(9, 3, position=Rope(100000.0)),
        feed_forward=SwiGLU(1536),
        norm=RMSNorm(eps=1e-5),
        max_sequence_length=8192,
        tie_embeddings=True,
    ),
    vocabulary_size=49152,
    source="Ben Allal et al. 2025, arXiv 2502.02737",
)
