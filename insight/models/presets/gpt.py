"""GPT-2 and its relatives: layer norms and feed-forward layers without a gate."""

from __future__ import annotations

from insight.models.attention import GroupedQueryAttention
from insight.models.blocks import ParallelResidual
from insight.models.decoder import DecoderConfig
from insight.models.feed_forward import MLP
from insight.models.norms import LayerNorm, OffsetLayerNorm
from insight.models.positions import Alibi, InterleavedRope, LearnedPosition, NoPosition, Rope
from insight.models.presets.preset import Preset

GPT2 = Preset(
    DecoderConfig(
        hidden_size=768,
        num_layers=12,
        attention=GroupedQueryAttention(12, position=NoPosition(), qkv_bias=True, output_bias=True),
        feed_forward=MLP(activation="gelu_tanh", bias=True),
        norm=LayerNorm(eps=1e-5),
        max_sequence_length=1024,
        tie_embeddings=True,
        input_position=LearnedPosition(),
    ),
    vocabulary_size=50257,
    source="Radford et al. 2019, Language Models are Unsupervised Multitask Learners",
)


PYTHIA_160M = Preset(
    DecoderConfig(
        hidden_size=768,
        num_layers=12,
        attention=GroupedQueryAttention(
            12, position=Rope(rotated_share=0.25), qkv_bias=True, output_bias=True
        ),
        feed_forward=MLP(activation="gelu", bias=True),
        norm=LayerNorm(eps=1e-5),
        max_sequence_length=2048,
        block=ParallelResidual(),
    ),
    vocabulary_size=50304,
    source="Biderman et al. 2023, arXiv 2304.01373",
)


FALCON_7B = Preset(
    DecoderConfig(
        hidden_size=4544,
        num_layers=32,
        attention=GroupedQueryAttention(71, 1),
        feed_forward=MLP(activation="gelu"),
        norm=LayerNorm(eps=1e-5),
        max_sequence_length=2048,
        tie_embeddings=True,
        block=ParallelResidual(shared_norm=True),
    ),
    vocabulary_size=65024,
    source="Almazrouei et al. 2023, arXiv 2311.16867",
)


BLOOM_560M = Preset(
    DecoderConfig(
        hidden_size=1024,
        num_layers=24,
        attention=GroupedQueryAttention(16, position=Alibi(), qkv_bias=True, output_bias=True),
        feed_forward=MLP(activation="gelu_tanh", bias=True),
        norm=LayerNorm(eps=1e-5),
        max_sequence_length=2048,
        tie_embeddings=True,
        embedding_norm=LayerNorm(eps=1e-5),
    ),
    vocabulary_size=250880,
    source="Le Scao et al. 2022, arXiv 2211.05100",
)


MPT_7B = Preset(
    DecoderConfig(
        hidden_size=4096,
        num_layers=32,
        attention=GroupedQueryAttention(32, position=Alibi()),
        feed_forward=MLP(activation="gelu"),
        norm=LayerNorm(eps=1e-5, bias=False),
        max_sequence_length=2048,
        tie_embeddings=True,
    ),
    vocabulary_size=50432,
    source="MosaicML 2023, MPT-7B",
)

GPTJ_6B = Preset(
    DecoderConfig(
        hidden_size=4096,
        num_layers=28,
        attention=GroupedQueryAttention(16, position=InterleavedRope(rotated_share=0.25)),
        feed_forward=MLP(activation="gelu_tanh", bias=True),
        norm=LayerNorm(eps=1e-5),
        max_sequence_length=2048,
        block=ParallelResidual(shared_norm=True),
        head_bias=True,
    ),
    vocabulary_size=50400,
    source="Wang and Komatsuzaki 2021, GPT-J-6B",
)

PHI2 = Preset(
    DecoderConfig(
        hidden_size=2560,
        num_layers=32,
        attention=GroupedQueryAttention(
            32, position=Rope(rotated_share=0.4), qkv_bias=True, output_bias=True
        ),
        feed_forward=MLP(10240, activation="gelu_tanh", bias=True),
        norm=LayerNorm(eps=1e-5),
        max_sequence_length=2048,
        block=ParallelResidual(shared_norm=True),
        head_bias=True,
    ),
    vocabulary_size=51200,
    source="Microsoft 2023, Phi-2; Gunasekar et al. 2023, arXiv 2306.11644",
)

STARCODER2_3B = Preset(
    DecoderConfig(
        hidden_size=3072,
        num_layers=30,
        attention=GroupedQueryAttention(
            24, 2, position=Rope(999999.4420358813), window=4096, qkv_bias=True, output_bias=True
        ),
        feed_forward=MLP(12288, activation="gelu_tanh", bias=True),
        norm=LayerNorm(eps=1e-5),
        max_sequence_length=16384,
        tie_embeddings=True,
    ),
    vocabulary_size=49152,
    source="Lozhkov et al. 2024, arXiv 2402.19173",
)

MINITRON_4B = Preset(
    DecoderConfig(
        hidden_size=3072,
        num_layers=32,
        attention=GroupedQueryAttention(24, 8, head_dim=128, position=Rope(rotated_share=0.5)),
        feed_forward=MLP(9216, activation="relu_squared"),
        norm=OffsetLayerNorm(eps=1e-5),
        max_sequence_length=4096,
    ),
    vocabulary_size=256000,
    source="Muralidharan et al. 2024, arXiv 2407.14679; Nemotron, arXiv 2402.16819",
)
