"""gpt-oss: sinks, every other layer a short window, a mixture of experts with biases in every block."""

from __future__ import annotations

from dataclasses import replace

from insight.models.attention import GroupedQueryAttention, LayerPattern
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import MixtureOfExperts
from insight.models.norms import RMSNorm
from insight.models.positions import Rope, YarnScaling
from insight.models.presets.preset import Preset

_GLOBAL = GroupedQueryAttention(
    64,
    8,
    head_dim=64,
    position=Rope(150000.0, scaling=YarnScaling(32.0, 4096, truncate=False)),
    qkv_bias=True,
    output_bias=True,
    sinks=True,
)

GPT_OSS_20B = Preset(
    DecoderConfig(
        hidden_size=2880,
        num_layers=24,
        attention=LayerPattern((replace(_GLOBAL, window=128), _GLOBAL)),
        feed_forward=MixtureOfExperts(
            num_experts=32,
            num_experts_per_token=4,
            intermediate_size=2880,
            gate="clamped",
            expert_bias=True,
            router_bias=True,
        ),
        norm=RMSNorm(eps=1e-5),
        max_sequence_length=131072,
    ),
    vocabulary_size=201088,
    source="OpenAI 2025, arXiv 2508.10925",
)
