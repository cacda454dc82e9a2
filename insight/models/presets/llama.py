"""Llama 2 and 3, and SmolLM 2 of the same architecture."""

from __future__ import annotations

from dataclasses import replace

from insight.models.attention import DifferentialAttention, FullWidthNorm, GroupedQueryAttention, LayerPattern
from insight.models.blocks import BranchNorm
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import MixtureOfExperts, SwiGLU
from insight.models.norms import RMSNorm
from insight.models.positions import Llama3Scaling, NoPosition, Rope
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

MIXTRAL_8X7B = Preset(
    DecoderConfig(
        hidden_size=4096,
        num_layers=32,
        attention=GroupedQueryAttention(32, 8, position=Rope(1000000.0)),
        feed_forward=MixtureOfExperts(8, 2, intermediate_size=14336),
        norm=RMSNorm(eps=1e-5),
        max_sequence_length=32768,
    ),
    vocabulary_size=32000,
    source="Jiang et al. 2024, arXiv 2401.04088",
)


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


OLMO2_7B = Preset(
    DecoderConfig(
        hidden_size=4096,
        num_layers=32,
        attention=GroupedQueryAttention(
            32, position=Rope(500000.0), qk_norm=FullWidthNorm(RMSNorm(eps=1e-6))
        ),
        feed_forward=SwiGLU(11008),
        norm=RMSNorm(eps=1e-6),
        max_sequence_length=4096,
        block=BranchNorm(),
    ),
    vocabulary_size=100352,
    source="OLMo Team 2024, arXiv 2501.00656",
)


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
