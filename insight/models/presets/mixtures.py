"""Mixtures of experts: DeepSeek, gpt-oss, Qwen and Llama 4."""

from __future__ import annotations

from dataclasses import replace

from insight.models.attention import GroupedQueryAttention, HeadNorm, LatentAttention, LayerPattern
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import BalanceBias, FeedForwardPattern, MixtureOfExperts, SwiGLU
from insight.models.norms import RMSNorm
from insight.models.positions import InterleavedRope, Llama3Scaling, QueryTemperature, Rope, YarnScaling
from insight.models.presets.preset import Preset

# Both mscales of the published configuration are 1: their ratio leaves queries and keys unchanged, and the
# scores are multiplied by the square of YaRN's factor for each.
_SCALING = YarnScaling(40.0, 4096, attention_factor=1.0)
_MSCALE = YarnScaling(40.0, 4096).amplitude

DEEPSEEK_V3 = Preset(
    DecoderConfig(
        hidden_size=7168,
        num_layers=61,
        attention=LatentAttention(
            num_heads=128,
            latent_size=512,
            query_latent_size=1536,
            head_dim=128,
            rotary_dim=64,
            value_dim=128,
            position=InterleavedRope(scaling=_SCALING),
            score_scale=192**-0.5 * _MSCALE**2,
        ),
        feed_forward=FeedForwardPattern(
            first=3 * (SwiGLU(18432),),
            layers=(
                MixtureOfExperts(
                    num_experts=256,
                    num_experts_per_token=8,
                    intermediate_size=2048,
                    num_shared_experts=1,
                    score="sigmoid",
                    weight_scale=2.5,
                    num_groups=8,
                    num_groups_per_token=4,
                    balance=BalanceBias(0.001),
                ),
            ),
        ),
        norm=RMSNorm(eps=1e-6),
        max_sequence_length=163840,
    ),
    vocabulary_size=129280,
    source="DeepSeek-AI 2024, arXiv 2412.19437, without the module that predicts a second token",
)

MOONLIGHT_16B = Preset(
    DecoderConfig(
        hidden_size=2048,
        num_layers=27,
        attention=LatentAttention(
            num_heads=16,
            latent_size=512,
            head_dim=128,
            rotary_dim=64,
            value_dim=128,
            position=InterleavedRope(50000.0),
        ),
        feed_forward=FeedForwardPattern(
            first=(SwiGLU(11264),),
            layers=(
                MixtureOfExperts(
                    num_experts=64,
                    num_experts_per_token=6,
                    intermediate_size=1408,
                    num_shared_experts=2,
                    score="sigmoid",
                    weight_scale=2.446,
                    balance=BalanceBias(0.001),
                ),
            ),
        ),
        norm=RMSNorm(eps=1e-5),
        max_sequence_length=8192,
    ),
    vocabulary_size=163840,
    source="Liu et al. 2025, arXiv 2502.16982",
)


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

QWEN15_MOE = Preset(
    DecoderConfig(
        hidden_size=2048,
        num_layers=24,
        attention=GroupedQueryAttention(16, position=Rope(1000000.0), qkv_bias=True),
        feed_forward=MixtureOfExperts(
            num_experts=60,
            num_experts_per_token=4,
            intermediate_size=1408,
            num_shared_experts=4,
            normalized_weights=False,
            shared_gate=True,
        ),
        norm=RMSNorm(eps=1e-6),
        max_sequence_length=8192,
    ),
    vocabulary_size=151936,
    source="Qwen Team 2024, Qwen1.5-MoE-A2.7B, the architecture of Qwen 2 MoE (arXiv 2407.10671)",
)

QWEN3_30B = Preset(
    DecoderConfig(
        hidden_size=2048,
        num_layers=48,
        attention=GroupedQueryAttention(32, 4, head_dim=128, position=Rope(1000000.0), qk_norm="rms"),
        feed_forward=MixtureOfExperts(num_experts=128, num_experts_per_token=8, intermediate_size=768),
        norm=RMSNorm(eps=1e-6),
        max_sequence_length=40960,
    ),
    vocabulary_size=151936,
    source="Yang et al. 2025, arXiv 2505.09388",
)

_LLAMA4_LOCAL = GroupedQueryAttention(
    40,
    8,
    head_dim=128,
    position=InterleavedRope(500000.0, scaling=Llama3Scaling(16.0, 1.0, 1.0, 8192)),
    qk_norm=HeadNorm(RMSNorm(eps=1e-5, weight=False), after_position=True),
    chunk_size=8192,
)

LLAMA4_SCOUT = Preset(
    DecoderConfig(
        hidden_size=5120,
        num_layers=48,
        attention=LayerPattern(
            (
                *3 * (_LLAMA4_LOCAL,),
                replace(_LLAMA4_LOCAL, position=QueryTemperature(8192, 0.1), qk_norm="none", chunk_size=None),
            )
        ),
        feed_forward=MixtureOfExperts(
            num_experts=16,
            num_experts_per_token=1,
            intermediate_size=8192,
            num_shared_experts=1,
            score="sigmoid",
            normalized_weights=False,
            weighted_inputs=True,
        ),
        norm=RMSNorm(eps=1e-5),
        max_sequence_length=10485760,
    ),
    vocabulary_size=202048,
    source="Meta 2025, Llama 4 Scout model card, without the part that reads images",
)
