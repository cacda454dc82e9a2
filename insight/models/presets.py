"""Published networks as plain configurations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from insight.models.attention import (
    Attention,
    DifferentialAttention,
    FullWidthNorm,
    GroupedQueryAttention,
    HeadNorm,
    LatentAttention,
    LayerPattern,
)
from insight.models.blocks import BranchNorm, ParallelResidual, PostNorm, PreNorm, SandwichNorm
from insight.models.decoder import DecoderConfig
from insight.models.encoder import EncoderConfig
from insight.models.encoder_decoder import EncoderDecoderConfig
from insight.models.feed_forward import (
    MLP,
    BalanceBias,
    FeedForward,
    FeedForwardPattern,
    GeGLU,
    MixtureOfExperts,
    SwiGLU,
)
from insight.models.norms import LayerNorm, Norm, OffsetLayerNorm, OffsetRMSNorm, RMSNorm
from insight.models.positions import (
    Alibi,
    InterleavedRope,
    LearnedPosition,
    Llama3Scaling,
    NoPosition,
    QueryTemperature,
    RelativeBias,
    Rope,
    SinusoidalPosition,
    YarnScaling,
)


@dataclass(frozen=True)
class Preset:
    """The shape of a published network, without weights.

    Args:
        config: Configuration of the network.
        vocabulary_size: Rows of the embedding, or of both if source and target share one.
        source: Where it was published.
    """

    config: DecoderConfig | EncoderDecoderConfig
    vocabulary_size: int
    source: str


def _preset(
    source: str,
    sizes: tuple[int, int, int, int],
    attention: Attention,
    feed_forward: FeedForward,
    norm: Norm,
    **more: Any,
) -> Preset:
    """A decoder; ``sizes`` are vocabulary, hidden states, layers and tokens of context."""
    vocabulary_size, hidden_size, num_layers, context = sizes
    config = DecoderConfig(hidden_size, num_layers, attention, feed_forward, norm, context, **more)
    return Preset(config, vocabulary_size, source)


def _biased(num_heads: int, num_key_value_heads: int | None = None, **more: Any) -> GroupedQueryAttention:
    return GroupedQueryAttention(num_heads, num_key_value_heads, qkv_bias=True, output_bias=True, **more)


def _llama3(scale: float) -> GroupedQueryAttention:
    return GroupedQueryAttention(32, 8, position=Rope(5e5, scaling=Llama3Scaling(scale)))


def _t5(num_layers: int, num_heads: int, feed_forward: FeedForward, tied: bool) -> EncoderDecoderConfig:
    """T5 encodes distances, does not scale its scores, and its norms do not subtract the mean."""
    cross = GroupedQueryAttention(num_heads, head_dim=64, position=NoPosition(), score_scale=1.0)
    reading = replace(cross, position=RelativeBias(32, 128, bidirectional=True))
    writing = replace(cross, position=RelativeBias(32, 128))
    stack: Any = {"num_layers": num_layers, "feed_forward": feed_forward, "norm": RMSNorm(1e-6)}
    stack |= {"hidden_size": 512, "max_sequence_length": 512}
    scale = 512**-0.5 if tied else None
    decoder = DecoderConfig(attention=writing, tie_embeddings=tied, output_scale=scale, **stack)
    encoder = EncoderConfig(attention=reading, **stack)
    return EncoderDecoderConfig(encoder, decoder, cross, share_embeddings=True)


def _marian() -> EncoderDecoderConfig:
    attention = _biased(8, position=NoPosition())
    stack: Any = {
        "hidden_size": 512,
        "num_layers": 6,
        "attention": attention,
        "feed_forward": MLP(2048, "silu", bias=True),
        "norm": LayerNorm(1e-5),
        "max_sequence_length": 512,
        "block": PostNorm(),
        "input_position": SinusoidalPosition(in_turn=False),
        "embedding_scale": 512**0.5,
    }
    encoder, decoder = EncoderConfig(**stack), DecoderConfig(**stack, tie_embeddings=True)
    return EncoderDecoderConfig(encoder, decoder, attention, share_embeddings=True, logit_bias=True)


_QK_LAYER_NORM = HeadNorm(LayerNorm(1e-5, bias=False), own_factors=True)

# Gemma 2 caps scores; Gemma 3 instead normalises queries and keys and gives global layers a longer base.
_GEMMA2 = GroupedQueryAttention(8, 4, head_dim=256, score_scale=256**-0.5, score_soft_cap=50.0)
_GEMMA3 = GroupedQueryAttention(
    4, 1, head_dim=256, position=Rope(1e6), qk_norm=HeadNorm(OffsetRMSNorm(1e-6)), score_scale=256**-0.5
)
_GEMMA3_LOCAL = replace(_GEMMA3, position=Rope(1e4), window=512)

_OLMO2 = GroupedQueryAttention(32, position=Rope(5e5), qk_norm=FullWidthNorm(RMSNorm(1e-6)))
_OLMO3 = replace(
    _OLMO2, position=Rope(5e5, scaling=YarnScaling(8.0, 8192, attention_factor=1.2079441541679836))
)
_SMOLLM3 = GroupedQueryAttention(16, 4, position=Rope(5e6))
_STABLELM2 = GroupedQueryAttention(32, 8, position=Rope(rotated_share=0.25), qk_norm=_QK_LAYER_NORM)
_COMMAND_R = GroupedQueryAttention(96, 8, position=InterleavedRope(75e6), qk_norm=_QK_LAYER_NORM)
_GPT_OSS = _biased(
    64, 8, head_dim=64, position=Rope(150000.0, scaling=YarnScaling(32.0, 4096, truncate=False)), sinks=True
)
_LLAMA4 = GroupedQueryAttention(40, 8, head_dim=128, position=QueryTemperature(8192, 0.1))
_LLAMA4_LOCAL = replace(
    _LLAMA4,
    position=InterleavedRope(5e5, scaling=Llama3Scaling(16.0, 1.0, 1.0, 8192)),
    qk_norm=HeadNorm(RMSNorm(1e-5, weight=False), after_position=True),
    chunk_size=8192,
)

# Both mscales of the published configuration are 1: their ratio leaves queries and keys unchanged, and the
# scores are multiplied by the square of YaRN's factor for each.
_DEEPSEEK = LatentAttention(
    num_heads=128,
    latent_size=512,
    query_latent_size=1536,
    head_dim=128,
    rotary_dim=64,
    value_dim=128,
    position=InterleavedRope(scaling=YarnScaling(40.0, 4096, attention_factor=1.0)),
    score_scale=192**-0.5 * YarnScaling(40.0, 4096).amplitude ** 2,
)
_DEEPSEEK_EXPERTS = MixtureOfExperts(
    num_experts=256,
    num_experts_per_token=8,
    intermediate_size=2048,
    num_shared_experts=1,
    score="sigmoid",
    weight_scale=2.5,
    num_groups=8,
    num_groups_per_token=4,
    balance=BalanceBias(0.001),
)
_MOONLIGHT = LatentAttention(
    num_heads=16, latent_size=512, head_dim=128, rotary_dim=64, value_dim=128, position=InterleavedRope(5e4)
)
_MOONLIGHT_EXPERTS = MixtureOfExperts(
    num_experts=64,
    num_experts_per_token=6,
    intermediate_size=1408,
    num_shared_experts=2,
    score="sigmoid",
    weight_scale=2.446,
    balance=BalanceBias(0.001),
)

PRESETS: dict[str, Preset] = {
    "bloom-560m": _preset(
        "Le Scao et al. 2022, arXiv 2211.05100",
        (250880, 1024, 24, 2048),
        _biased(16, position=Alibi()),
        MLP(activation="gelu_tanh", bias=True),
        LayerNorm(1e-5),
        tie_embeddings=True,
        embedding_norm=LayerNorm(1e-5),
    ),
    "command-r-plus": _preset(
        "Cohere 2024, Command R+ model card",
        (256000, 12288, 64, 131072),
        _COMMAND_R,
        SwiGLU(33792),
        LayerNorm(1e-5, bias=False),
        tie_embeddings=True,
        block=ParallelResidual(shared_norm=True),
        output_scale=0.8333333333333334,
    ),
    "deepseek-v3": _preset(
        "DeepSeek-AI 2024, arXiv 2412.19437, without the module that predicts a second token",
        (129280, 7168, 61, 163840),
        _DEEPSEEK,
        FeedForwardPattern((_DEEPSEEK_EXPERTS,), first=3 * (SwiGLU(18432),)),
        RMSNorm(1e-6),
    ),
    "diffllama-1b": _preset(
        "Ye et al. 2024, arXiv 2410.05258, in the default sizes of transformers' DiffLlama",
        (32000, 2048, 16, 2048),
        DifferentialAttention(32, norm_eps=1e-5),
        SwiGLU(8192),
        RMSNorm(1e-5),
    ),
    "falcon-7b": _preset(
        "Almazrouei et al. 2023, arXiv 2311.16867",
        (65024, 4544, 32, 2048),
        GroupedQueryAttention(71, 1),
        MLP(activation="gelu"),
        LayerNorm(1e-5),
        tie_embeddings=True,
        block=ParallelResidual(shared_norm=True),
    ),
    "gemma-2-2b": _preset(
        "Gemma Team 2024, arXiv 2408.00118",
        (256000, 2304, 26, 8192),
        LayerPattern((replace(_GEMMA2, window=4096), _GEMMA2)),
        GeGLU(9216),
        OffsetRMSNorm(1e-6),
        tie_embeddings=True,
        logit_soft_cap=30.0,
        block=SandwichNorm(),
        embedding_scale=2304**0.5,
    ),
    "gemma-3-1b": _preset(
        "Gemma Team 2025, arXiv 2503.19786",
        (262144, 1152, 26, 32768),
        LayerPattern((*5 * (_GEMMA3_LOCAL,), _GEMMA3)),
        GeGLU(6912),
        OffsetRMSNorm(1e-6),
        tie_embeddings=True,
        block=SandwichNorm(),
        embedding_scale=1152**0.5,
    ),
    "glm-4-9b": _preset(
        "GLM Team 2025, GLM-4-0414; arXiv 2406.12793",
        (151552, 4096, 40, 32768),
        GroupedQueryAttention(
            32, 2, head_dim=128, position=InterleavedRope(rotated_share=0.5), qkv_bias=True
        ),
        SwiGLU(13696),
        RMSNorm(1e-5),
        block=SandwichNorm(),
    ),
    "gpt-j-6b": _preset(
        "Wang and Komatsuzaki 2021, GPT-J-6B",
        (50400, 4096, 28, 2048),
        GroupedQueryAttention(16, position=InterleavedRope(rotated_share=0.25)),
        MLP(activation="gelu_tanh", bias=True),
        LayerNorm(1e-5),
        block=ParallelResidual(shared_norm=True),
        head_bias=True,
    ),
    "gpt-oss-20b": _preset(
        "OpenAI 2025, arXiv 2508.10925",
        (201088, 2880, 24, 131072),
        LayerPattern((replace(_GPT_OSS, window=128), _GPT_OSS)),
        MixtureOfExperts(32, 4, 2880, gate="clamped", expert_bias=True, router_bias=True),
        RMSNorm(1e-5),
    ),
    "gpt2": _preset(
        "Radford et al. 2019, Language Models are Unsupervised Multitask Learners",
        (50257, 768, 12, 1024),
        _biased(12, position=NoPosition()),
        MLP(activation="gelu_tanh", bias=True),
        LayerNorm(1e-5),
        tie_embeddings=True,
        input_position=LearnedPosition(),
    ),
    "granite-3.1-2b": _preset(
        "Granite Team 2024, Granite 3.1 (IBM)",
        (49155, 2048, 40, 131072),
        GroupedQueryAttention(32, 8, position=Rope(5e6), score_scale=0.015625),
        SwiGLU(8192),
        RMSNorm(1e-5),
        tie_embeddings=True,
        block=PreNorm(branch_scale=0.22),
        embedding_scale=12.0,
        output_scale=1 / 8,
    ),
    "llama-2-7b": _preset(
        "Touvron et al. 2023, arXiv 2307.09288",
        (32000, 4096, 32, 4096),
        GroupedQueryAttention(32),
        SwiGLU(11008),
        RMSNorm(1e-5),
    ),
    "llama-3.1-8b": _preset(
        "Grattafiori et al. 2024, arXiv 2407.21783",
        (128256, 4096, 32, 131072),
        _llama3(8.0),
        SwiGLU(14336),
        RMSNorm(1e-5),
    ),
    "llama-3.2-1b": _preset(
        "Meta 2024, Llama 3.2 model card",
        (128256, 2048, 16, 131072),
        _llama3(32.0),
        SwiGLU(8192),
        RMSNorm(1e-5),
        tie_embeddings=True,
    ),
    "llama-4-scout": _preset(
        "Meta 2025, Llama 4 Scout model card, without the part that reads images",
        (202048, 5120, 48, 10485760),
        LayerPattern((*3 * (_LLAMA4_LOCAL,), _LLAMA4)),
        MixtureOfExperts(
            num_experts=16,
            num_experts_per_token=1,
            intermediate_size=8192,
            num_shared_experts=1,
            score="sigmoid",
            normalized_weights=False,
            weighted_inputs=True,
        ),
        RMSNorm(1e-5),
    ),
    "minitron-4b": _preset(
        "Muralidharan et al. 2024, arXiv 2407.14679; Nemotron, arXiv 2402.16819",
        (256000, 3072, 32, 4096),
        GroupedQueryAttention(24, 8, head_dim=128, position=Rope(rotated_share=0.5)),
        MLP(9216, "relu_squared"),
        OffsetLayerNorm(1e-5),
    ),
    "mistral-7b": _preset(
        "Jiang et al. 2023, arXiv 2310.06825",
        (32000, 4096, 32, 32768),
        GroupedQueryAttention(32, 8, window=4096),
        SwiGLU(14336),
        RMSNorm(1e-5),
    ),
    "mixtral-8x7b": _preset(
        "Jiang et al. 2024, arXiv 2401.04088",
        (32000, 4096, 32, 32768),
        GroupedQueryAttention(32, 8, position=Rope(1e6)),
        MixtureOfExperts(8, 2, 14336),
        RMSNorm(1e-5),
    ),
    "moonlight-16b": _preset(
        "Liu et al. 2025, arXiv 2502.16982",
        (163840, 2048, 27, 8192),
        _MOONLIGHT,
        FeedForwardPattern((_MOONLIGHT_EXPERTS,), first=(SwiGLU(11264),)),
        RMSNorm(1e-5),
    ),
    "mpt-7b": _preset(
        "MosaicML 2023, MPT-7B",
        (50432, 4096, 32, 2048),
        GroupedQueryAttention(32, position=Alibi()),
        MLP(activation="gelu"),
        LayerNorm(1e-5, bias=False),
        tie_embeddings=True,
    ),
    "olmo-2-7b": _preset(
        "OLMo Team 2024, arXiv 2501.00656",
        (100352, 4096, 32, 4096),
        _OLMO2,
        SwiGLU(11008),
        RMSNorm(1e-6),
        block=BranchNorm(),
    ),
    "olmo-3-7b": _preset(
        "OLMo Team 2025, OLMo 3 (Ai2), arXiv 2512.13961",
        (100278, 4096, 32, 65536),
        LayerPattern((*3 * (replace(_OLMO2, window=4096),), _OLMO3)),
        SwiGLU(11008),
        RMSNorm(1e-6),
        block=BranchNorm(),
    ),
    "opus-mt-en-de": Preset(
        _marian(),
        58101,
        "Tiedemann and Thottingal 2020, OPUS-MT (English to German); Marian, arXiv 1804.00344",
    ),
    "phi-2": _preset(
        "Microsoft 2023, Phi-2; Gunasekar et al. 2023, arXiv 2306.11644",
        (51200, 2560, 32, 2048),
        _biased(32, position=Rope(rotated_share=0.4)),
        MLP(10240, "gelu_tanh", bias=True),
        LayerNorm(1e-5),
        block=ParallelResidual(shared_norm=True),
        head_bias=True,
    ),
    "phi-3-mini": _preset(
        "Abdin et al. 2024, arXiv 2404.14219",
        (32064, 3072, 32, 4096),
        GroupedQueryAttention(32, window=2047),
        SwiGLU(8192),
        RMSNorm(1e-5),
    ),
    "pythia-160m": _preset(
        "Biderman et al. 2023, arXiv 2304.01373",
        (50304, 768, 12, 2048),
        _biased(12, position=Rope(rotated_share=0.25)),
        MLP(activation="gelu", bias=True),
        LayerNorm(1e-5),
        block=ParallelResidual(),
    ),
    "qwen-1.5-moe": _preset(
        "Qwen Team 2024, Qwen1.5-MoE-A2.7B, the architecture of Qwen 2 MoE (arXiv 2407.10671)",
        (151936, 2048, 24, 8192),
        GroupedQueryAttention(16, position=Rope(1e6), qkv_bias=True),
        MixtureOfExperts(60, 4, 1408, 4, normalized_weights=False, shared_gate=True),
        RMSNorm(1e-6),
    ),
    "qwen-2-0.5b": _preset(
        "Yang et al. 2024, arXiv 2407.10671",
        (151936, 896, 24, 131072),
        GroupedQueryAttention(14, 2, position=Rope(1e6), qkv_bias=True),
        SwiGLU(4864),
        RMSNorm(1e-6),
        tie_embeddings=True,
    ),
    "qwen-3-0.6b": _preset(
        "Yang et al. 2025, arXiv 2505.09388",
        (151936, 1024, 28, 40960),
        GroupedQueryAttention(16, 8, head_dim=128, position=Rope(1e6), qk_norm="rms"),
        SwiGLU(3072),
        RMSNorm(1e-6),
        tie_embeddings=True,
    ),
    "qwen-3-30b-a3b": _preset(
        "Yang et al. 2025, arXiv 2505.09388",
        (151936, 2048, 48, 40960),
        GroupedQueryAttention(32, 4, head_dim=128, position=Rope(1e6), qk_norm="rms"),
        MixtureOfExperts(128, 8, 768),
        RMSNorm(1e-6),
    ),
    "smollm-2-135m": _preset(
        "Ben Allal et al. 2025, arXiv 2502.02737",
        (49152, 576, 30, 8192),
        GroupedQueryAttention(9, 3, position=Rope(1e5)),
        SwiGLU(1536),
        RMSNorm(1e-5),
        tie_embeddings=True,
    ),
    "smollm-3-3b": _preset(
        "Bakouch et al. 2025, SmolLM3 (Hugging Face)",
        (128256, 2048, 36, 65536),
        LayerPattern((*3 * (_SMOLLM3,), replace(_SMOLLM3, position=NoPosition()))),
        SwiGLU(11008),
        RMSNorm(1e-6),
        tie_embeddings=True,
    ),
    "stablelm-2-12b": _preset(
        "Bellagente et al. 2024, arXiv 2402.17834",
        (100352, 5120, 40, 4096),
        _STABLELM2,
        SwiGLU(13824),
        LayerNorm(1e-5),
        block=ParallelResidual(shared_norm=True),
    ),
    "starcoder2-3b": _preset(
        "Lozhkov et al. 2024, arXiv 2402.19173",
        (49152, 3072, 30, 16384),
        _biased(24, 2, position=Rope(999999.4420358813), window=4096),
        MLP(12288, "gelu_tanh", bias=True),
        LayerNorm(1e-5),
        tie_embeddings=True,
    ),
    "t5-small": Preset(
        _t5(6, 8, MLP(2048, "relu"), tied=True), 32128, "Raffel et al. 2019, arXiv 1910.10683"
    ),
    "t5-v1.1-small": Preset(
        _t5(8, 6, GeGLU(1024), tied=False),
        32128,
        "Raffel et al. 2020, T5 version 1.1 (gated as in arXiv 2002.05202)",
    ),
}
