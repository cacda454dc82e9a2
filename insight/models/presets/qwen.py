"""Qwen 2 (biases on queries, keys and values) and Qwen 3 (normalised queries and keys instead)."""

from __future__ import annotations

from insight.models.attention import GroupedQueryAttention
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import SwiGLU
from insight.models.norms import RMSNorm
from insight.models.positions import Rope
from insight.models.presets.preset import Preset

QWEN2_05B = Preset(
    DecoderConfig(
        hidden_size=896,
        num_layers=24,
        attention=GroupedQueryAttention(14, 2, position=Rope(1000000.0), qkv_bias=True),
        feed_forward=SwiGLU(4864),
        norm=RMSNorm(eps=1e-6),
        max_sequence_length=131072,
        tie_embeddings=True,
    ),
    vocabulary_size=151936,
    source="Yang et al. 2024, arXiv 2407.10671",
)

QWEN3_06B = Preset(
    DecoderConfig(
        hidden_size=1024,
        num_layers=28,
        attention=GroupedQueryAttention(16, 8, head_dim=128, position=Rope(1000000.0), qk_norm="rms"),
        feed_forward=SwiGLU(3072),
        norm=RMSNorm(eps=1e-6),
        max_sequence_length=40960,
        tie_embeddings=True,
    ),
    vocabulary_size=151936,
    source="Yang et al. 2025, arXiv 2505.09388",
)
