"""Llama and its relatives: rotary positions and gated feed-forward layers."""

from __future__ import annotations

from dataclasses import replace

from insight.models.attention import (
    DifferentialAttention,
    FullWidthNorm,
    GroupedQueryAttention,
    HeadNorm,
    LayerPattern,
)
from insight.models.blocks import BranchNorm, ParallelResidual, PreNorm, SandwichNorm
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import MixtureOfExperts, SwiGLU
from insight.models.norms import LayerNorm, RMSNorm
from insight.models.positions import InterleavedRope, Llama3Scaling, NoPosition, Rope, YarnScaling
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

_OLMO3_LOCAL = GroupedQueryAttention(
    32, position=Rope(500000.0), qk_norm=FullWidthNorm(RMSNorm(eps=1e-6)), window=4096
)
_OLMO3_SCALING = YarnScaling(8.0, 8192, attention_factor=1.2079441541679836)

OLMO3_7B = Preset(
    DecoderConfig(
        hidden_size=4096,
        num_layers=32,
        attention=LayerPattern(
            (
                *3 * (_OLMO3_LOCAL,),
                replace(_OLMO3_LOCAL, position=Rope(500000.0, scaling=_OLMO3_SCALING), window=None),
            )
        ),
        feed_forward=SwiGLU(11008),
        norm=RMSNorm(eps=1e-6),
        max_sequence_length=65536,
        block=BranchNorm(),
    ),
    vocabulary_size=100278,
    source="OLMo Team 2025, OLMo 3 (Ai2), arXiv 2512.13961",
)

COMMAND_R_PLUS = Preset(
    DecoderConfig(
        hidden_size=12288,
        num_layers=64,
        attention=GroupedQueryAttention(
            96,
            8,
            position=InterleavedRope(75000000.0),
            qk_norm=HeadNorm(LayerNorm(eps=1e-5, bias=False), own_factors=True),
        ),
        feed_forward=SwiGLU(33792),
        norm=LayerNorm(eps=1e-5, bias=False),
        max_sequence_length=131072,
        tie_embeddings=True,
        block=ParallelResidual(shared_norm=True),
        output_scale=0.8333333333333334,
    ),
    vocabulary_size=256000,
    source="Cohere 2024, Command R+ model card",
)

GRANITE31_2B = Preset(
    DecoderConfig(
        hidden_size=2048,
        num_layers=40,
        attention=GroupedQueryAttention(32, 8, position=Rope(5000000.0), score_scale=0.015625),
        feed_forward=SwiGLU(8192),
        norm=RMSNorm(eps=1e-5),
        max_sequence_length=131072,
        tie_embeddings=True,
        block=PreNorm(branch_scale=0.22),
        embedding_scale=12.0,
        output_scale=1 / 8,
    ),
    vocabulary_size=49155,
    source="Granite Team 2024, Granite 3.1 (IBM)",
)

STABLELM2_12B = Preset(
    DecoderConfig(
        hidden_size=5120,
        num_layers=40,
        attention=GroupedQueryAttention(
            32,
            8,
            position=Rope(rotated_share=0.25),
            qk_norm=HeadNorm(LayerNorm(eps=1e-5, bias=False), own_factors=True),
        ),
        feed_forward=SwiGLU(13824),
        norm=LayerNorm(eps=1e-5),
        max_sequence_length=4096,
        block=ParallelResidual(shared_norm=True),
    ),
    vocabulary_size=100352,
    source="Bellagente et al. 2024, arXiv 2402.17834",
)

GLM4_9B = Preset(
    DecoderConfig(
        hidden_size=4096,
        num_layers=40,
        attention=GroupedQueryAttention(
            32, 2, head_dim=128, position=InterleavedRope(rotated_share=0.5), qkv_bias=True
        ),
        feed_forward=SwiGLU(13696),
        norm=RMSNorm(eps=1e-5),
        max_sequence_length=32768,
        block=SandwichNorm(),
    ),
    vocabulary_size=151552,
    source="GLM Team 2025, GLM-4-0414; arXiv 2406.12793",
)
