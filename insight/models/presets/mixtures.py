"""DeepSeek-V3, and Moonlight of the same architecture: latent attention, experts above dense blocks."""

from __future__ import annotations

from dataclasses import replace

from insight.models.attention import GroupedQueryAttention, LatentAttention, LayerPattern
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import BalanceBias, FeedForwardPattern, MixtureOfExperts, SwiGLU
from insight.models.norms import RMSNorm
from insight.models.positions import InterleavedRope, Rope, YarnScaling
from insight.models.presets.preset import Preset

# Both mscales of the published configuration are 1: their ratio leaves queries and keys as they are, and the
# scores are multiplied by the square of what YaRN would have multiplied each by.
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
