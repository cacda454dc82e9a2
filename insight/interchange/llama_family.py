"""The families of Llama's kind, with gated feed-forwards and mixtures: from a config.json to a network."""

from __future__ import annotations

from typing import Any

from insight.interchange.config_fields import (
    CHUNKED,
    FULL,
    SLIDING,
    Fields,
    feed_forwards,
    layers,
    yarn_amplitude,
)
from insight.interchange.family import Family
from insight.interchange.llama import (
    DIFFLLAMA,
    GEMMA,
    GLM4,
    GPT_OSS,
    LLAMA,
    LLAMA4,
    MIXTRAL,
    OLMO2,
    PHI3,
    QWEN_MOE,
    deepseek_v3_names,
    stablelm_names,
)
from insight.interchange.name_map import NameMap
from insight.models import (
    BalanceBias,
    BranchNorm,
    DecoderConfig,
    DifferentialAttention,
    FeedForward,
    FullWidthNorm,
    GroupedQueryAttention,
    HeadNorm,
    LatentAttention,
    LayerNorm,
    MixtureOfExperts,
    NoPosition,
    Norm,
    OffsetRMSNorm,
    ParallelResidual,
    PreNorm,
    QueryTemperature,
    RMSNorm,
    SandwichNorm,
)
from insight.models.attention import Attention, LayerPattern


def decoder(
    f: Fields, attention: Attention, feed_forward: FeedForward, norm: Norm, tied: bool = False, **more: Any
) -> DecoderConfig:
    """A decoder whose sizes have Llama's names; ``tied`` is the family's default."""
    return DecoderConfig(
        hidden_size=f.count("hidden_size"),
        num_layers=f.count("num_hidden_layers"),
        attention=attention,
        feed_forward=feed_forward,
        norm=norm,
        max_sequence_length=f.count("max_position_embeddings", 2048),
        tie_embeddings=f.flag("tie_word_embeddings", tied),
        **more,
    )


def heads(f: Fields, **more: Any) -> GroupedQueryAttention:
    """Attention whose sizes have Llama's names."""
    return GroupedQueryAttention(**_sizes_of_heads(f, **more))


def _sizes_of_heads(f: Fields, **more: Any) -> dict[str, Any]:
    sizes: dict[str, Any] = {
        "num_heads": f.count("num_attention_heads"),
        "num_key_value_heads": f.count("num_key_value_heads", None),
        "head_dim": f.count("head_dim", None),
    }
    return sizes | ({} if "position" in more else {"position": f.rope()}) | more


def _rms(f: Fields, eps: float = 1e-6) -> RMSNorm:
    return RMSNorm(f.number("rms_norm_eps", eps))


def _biases(f: Fields, default: bool = False) -> dict[str, bool]:
    return dict.fromkeys(("qkv_bias", "output_bias"), f.flag("attention_bias", default))


def _windowed(f: Fields, num_full: int | None = None, **more: Any) -> Attention:
    """Layers with a window from ``max_window_layers`` on, if ``use_sliding_window`` is set."""
    count = f.count("num_hidden_layers")
    window = f.window(4096) if f.flag("use_sliding_window", False) else None
    if num_full is None:
        num_full = f.count("max_window_layers", 28)
    kinds = f.kinds(count, lambda layer: SLIDING if window and layer >= num_full else FULL, SLIDING, FULL)
    return layers([heads(f, window=window if kind == SLIDING else None, **more) for kind in kinds])


def _llama(f: Fields) -> DecoderConfig:
    return decoder(f, heads(f, **_biases(f)), f.gated(bias=f.flag("mlp_bias", False)), _rms(f))


def _mistral(f: Fields) -> DecoderConfig:
    return decoder(f, heads(f, window=f.window(4096)), f.gated(), _rms(f))


def _qwen2(f: Fields) -> DecoderConfig:
    return decoder(f, _windowed(f, qkv_bias=True), f.gated(), _rms(f))


def _qwen3_attention(f: Fields, num_full: int | None = None) -> Attention:
    head_dim = f.count("head_dim", 128)
    norm = HeadNorm(_rms(f))
    return _windowed(f, num_full, head_dim=head_dim, qk_norm=norm, **_biases(f))


def _qwen3(f: Fields) -> DecoderConfig:
    return decoder(f, _qwen3_attention(f), f.gated(), _rms(f))


def _smollm3(f: Fields) -> DecoderConfig:
    f.require("use_sliding_window", False, False, None)
    count, interval = f.count("num_hidden_layers"), f.count("no_rope_layer_interval", 4)
    rotates = f.list_of("no_rope_layers", count, (0, 1))
    if rotates is None:
        rotates = [int((layer + 1) % interval != 0) for layer in range(count)]
    positions = [f.rope() if each else NoPosition() for each in rotates]
    attention = layers([heads(f, position=position, **_biases(f)) for position in positions])
    return decoder(f, attention, f.gated(bias=f.flag("mlp_bias", False)), _rms(f), tied=True)


def _granite(f: Fields) -> DecoderConfig:
    attention = heads(f, score_scale=f.number("attention_multiplier", 1.0), **_biases(f))
    return decoder(
        f,
        attention,
        f.gated(bias=f.flag("mlp_bias", False)),
        _rms(f),
        block=PreNorm(branch_scale=f.number("residual_multiplier", 1.0)),
        embedding_scale=f.number("embedding_multiplier", 1.0),
        output_scale=1 / f.number("logits_scaling", 1.0),
    )


def _cohere(f: Fields) -> DecoderConfig:
    norm = LayerNorm(f.number("layer_norm_eps", 1e-5), bias=False)
    qk_norm = HeadNorm(norm, own_factors=True) if f.flag("use_qk_norm", False) else "none"
    attention = heads(f, position=f.rope(5e5, interleaved=True), qk_norm=qk_norm, **_biases(f))
    scale = f.number("logit_scale", 0.0625)
    block = ParallelResidual(shared_norm=True)
    return decoder(f, attention, f.gated(), norm, tied=True, block=block, output_scale=scale)


def _stablelm(f: Fields) -> DecoderConfig:
    eps = f.number("layer_norm_eps", 1e-5)
    own = HeadNorm(LayerNorm(eps, bias=False), own_factors=True)
    attention = heads(
        f,
        position=f.rope(share=0.25),
        qkv_bias=f.flag("use_qkv_bias", False),
        qk_norm=own if f.flag("qk_layernorm", False) else "none",
    )
    parallel = f.flag("use_parallel_residual", False)
    block = ParallelResidual(shared_norm=True) if parallel else PreNorm()
    return decoder(f, attention, f.gated(), LayerNorm(eps), block=block)


def _olmo2(f: Fields) -> DecoderConfig:
    attention = heads(f, qk_norm=FullWidthNorm(_rms(f, 1e-5)), **_biases(f))
    return decoder(f, attention, f.gated(), _rms(f, 1e-5), block=BranchNorm())


def _olmo3(f: Fields) -> DecoderConfig:
    """Only the global layers of the published model scale their positions; transformers scales all."""
    count, window = f.count("num_hidden_layers"), f.window(4096)
    kinds = f.kinds(count, lambda layer: SLIDING if (layer + 1) % 4 else FULL, SLIDING, FULL)
    common: dict[str, Any] = {"qk_norm": FullWidthNorm(_rms(f, 1e-5)), **_biases(f)}
    local = heads(f, position=f.rope(scaled=False), window=window, **common)
    full = heads(f, **common)
    attention = layers([local if kind == SLIDING else full for kind in kinds])
    return decoder(f, attention, f.gated(), _rms(f, 1e-5), block=BranchNorm())


def _gemma(f: Fields, attention: Attention) -> DecoderConfig:
    return decoder(
        f,
        attention,
        f.gated("hidden_activation", "gelu_pytorch_tanh"),
        OffsetRMSNorm(f.number("rms_norm_eps", 1e-6)),
        tied=True,
        block=SandwichNorm(),
        embedding_scale=f.count("hidden_size") ** 0.5,
        logit_soft_cap=f.number("final_logit_softcapping", None),
    )


def _gemma_heads(f: Fields) -> dict[str, Any]:
    f.require("use_bidirectional_attention", None, None, False)
    return {
        "head_dim": f.count("head_dim", 256),
        "score_scale": f.number("query_pre_attn_scalar", 256) ** -0.5,
        "score_soft_cap": f.number("attn_logit_softcapping", None),
        **_biases(f),
    }


def _gemma2(f: Fields) -> DecoderConfig:
    f = Fields({"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0} | dict(f.values), f.name)
    count, window = f.count("num_hidden_layers"), f.window(4096)
    kinds = f.kinds(count, lambda layer: FULL if layer % 2 else SLIDING, SLIDING, FULL)
    windows = [window if kind == SLIDING else None for kind in kinds]
    return _gemma(f, layers([heads(f, window=one, **_gemma_heads(f)) for one in windows]))


def _gemma3(f: Fields) -> DecoderConfig:
    count, window = f.count("num_hidden_layers"), f.window(4096)
    every = f.count("sliding_window_pattern", 6) or 6
    kinds = f.kinds(count, lambda layer: SLIDING if (layer + 1) % every else FULL, SLIDING, FULL)
    common = _gemma_heads(f) | {"qk_norm": HeadNorm(OffsetRMSNorm(f.number("rms_norm_eps", 1e-6)))}
    # Older files have the scaling of the global layers beside the bases.
    by_kind = SLIDING in f.rotation().values
    local = f.rope(1e4, scaled=by_kind, kind=SLIDING, base_key="rope_local_base_freq")
    short = heads(f, position=local, window=window, **common)
    full = heads(f, position=f.rope(1e6), **common)
    return _gemma(f, layers([short if kind == SLIDING else full for kind in kinds]))


def _glm4(f: Fields) -> DecoderConfig:
    attention = heads(
        f,
        head_dim=f.count("head_dim", 128),
        position=f.rope(share=0.5, interleaved=True),
        qkv_bias=f.flag("attention_bias", True),
    )
    return decoder(f, attention, f.gated(), _rms(f, 1.5625e-07), block=SandwichNorm())


def _phi3(f: Fields) -> DecoderConfig:
    attention = heads(f, window=f.window(None))
    return decoder(f, attention, f.gated(), _rms(f, 1e-5))


def _diffllama(f: Fields) -> DecoderConfig:
    eps = f.number("rms_norm_eps", 1e-5)
    attention = DifferentialAttention(**_sizes_of_heads(f, norm_eps=eps, **_biases(f)))
    return decoder(f, attention, f.gated(), RMSNorm(eps))


def _mixtral(f: Fields) -> DecoderConfig:
    experts = f.count("num_local_experts", 8), f.count("num_experts_per_tok", 2), f.count("intermediate_size")
    f.require("hidden_act", "silu", "silu")
    attention = heads(f, position=f.rope(1e6), window=f.window(None))
    return decoder(f, attention, MixtureOfExperts(*experts), _rms(f, 1e-5))


def _qwen_experts(f: Fields, num_shared: int = 0) -> MixtureOfExperts:
    f.require("hidden_act", "silu", "silu")
    f.require("decoder_sparse_step", 1, 1)
    f.require("mlp_only_layers", None, None, [])
    return MixtureOfExperts(
        f.count("num_experts", None) or f.count("num_local_experts"),
        f.count("num_experts_per_tok"),
        f.count("moe_intermediate_size"),
        num_shared,
        normalized_weights=f.flag("norm_topk_prob", False),
        shared_gate=num_shared > 0,
    )


def _qwen2_moe(f: Fields) -> DecoderConfig:
    width = f.count("moe_intermediate_size")
    num_shared, rest = divmod(f.count("shared_expert_intermediate_size"), width or 1)
    if rest or not num_shared:
        raise f.refuse("shared_expert_intermediate_size", f"is no multiple of moe_intermediate_size={width}")
    attention = _windowed(f, qkv_bias=f.flag("qkv_bias", True))
    return decoder(f, attention, _qwen_experts(f, num_shared), _rms(f))


def _qwen3_moe(f: Fields) -> DecoderConfig:
    head_dim = f.count("head_dim", None)
    window = f.window(4096) if f.flag("use_sliding_window", False) else None
    norm = HeadNorm(_rms(f))
    attention = heads(f, head_dim=head_dim, qk_norm=norm, window=window, **_biases(f))
    return decoder(f, attention, _qwen_experts(f), _rms(f))


def _gpt_oss(f: Fields) -> DecoderConfig:
    yarn = {"rope_type": "yarn", "factor": 32.0, "truncate": False, "original_max_position_embeddings": 4096}
    scaled = f if f.rotation().values else Fields({**f.values, "rope_parameters": yarn}, f.name)
    count, window = f.count("num_hidden_layers"), f.window(128)
    kinds = f.kinds(count, lambda layer: FULL if layer % 2 else SLIDING, SLIDING, FULL)
    more = {"position": scaled.rope(150000.0), "head_dim": f.count("head_dim", 64), "sinks": True}
    both = dict.fromkeys(("qkv_bias", "output_bias"), True)
    windows = [window if kind == SLIDING else None for kind in kinds]
    attention = layers([heads(f, window=one, **more, **both) for one in windows])
    f.require("hidden_act", "silu", "silu")
    experts = MixtureOfExperts(
        f.count("num_local_experts"),
        f.count("num_experts_per_tok", 4),
        f.count("intermediate_size"),
        gate="clamped",
        expert_bias=True,
        router_bias=True,
    )
    return decoder(f, attention, experts, _rms(f, 1e-5))


def _deepseek_v3(f: Fields) -> DecoderConfig:
    f.require("attention_bias", False, False)
    f.require("scoring_func", "sigmoid", "sigmoid")
    f.require("moe_layer_freq", 1, 1)
    rotation, head_dim, rotary_dim = f.rotation(), f.count("qk_nope_head_dim"), f.count("qk_rope_head_dim")
    scale = (head_dim + rotary_dim) ** -0.5
    if rotation.get("rope_type", rotation.get("type", "default")) != "default":
        all_dim, factor = rotation.number("mscale_all_dim", 0.0), rotation.number("factor", 1.0)
        scale *= yarn_amplitude(factor, all_dim) ** 2 if all_dim else 1.0
    attention = LatentAttention(
        f.count("num_attention_heads"),
        f.count("kv_lora_rank"),
        f.count("q_lora_rank", None),
        head_dim,
        rotary_dim,
        f.count("v_head_dim"),
        f.rope(interleaved=f.flag("rope_interleave", True)),
        score_scale=scale,
    )
    experts = MixtureOfExperts(
        f.count("n_routed_experts"),
        f.count("num_experts_per_tok"),
        f.count("moe_intermediate_size"),
        f.count("n_shared_experts"),
        score="sigmoid",
        normalized_weights=f.flag("norm_topk_prob", True),
        weight_scale=f.number("routed_scaling_factor", 2.5),
        num_groups=f.count("n_group", 8),
        num_groups_per_token=f.count("topk_group", 4),
        balance=BalanceBias(),
    )
    count, num_dense = f.count("num_hidden_layers"), f.count("first_k_dense_replace", 3)
    each = [f.gated() if layer < num_dense else experts for layer in range(count)]
    return decoder(f, attention, feed_forwards(each), _rms(f))


def _llama4(f: Fields) -> DecoderConfig:
    count, interval = f.count("num_hidden_layers"), f.count("no_rope_layer_interval", 4)
    f.require("interleave_moe_layer_step", 1, 1)
    f.require("moe_layers", list(range(count)), None, list(range(count)))
    f.require("attn_temperature_tuning", True, True, 4)
    rotates = f.list_of("no_rope_layers", count, (0, 1))
    if rotates is None:
        rotates = [int((layer + 1) % interval != 0) for layer in range(count)]
    kinds = f.kinds(count, lambda layer: CHUNKED if rotates[layer] else FULL, CHUNKED, FULL)
    normed, eps = f.flag("use_qk_norm", True), f.number("rms_norm_eps", 1e-5)
    norm = HeadNorm(RMSNorm(eps, weight=False), after_position=True) if normed else "none"
    chunk = f.count("attention_chunk_size", 8192)
    warm = QueryTemperature(f.count("floor_scale", 8192), f.number("attn_scale", 0.1))
    each = [
        heads(
            f,
            position=f.rope(5e5, interleaved=True) if rotating else warm,
            qk_norm=norm if rotating else "none",
            chunk_size=chunk if kind == CHUNKED else None,
            **_biases(f),
        )
        for rotating, kind in zip(rotates, kinds, strict=True)
    ]
    experts = MixtureOfExperts(
        f.count("num_local_experts"),
        f.count("num_experts_per_tok", 1),
        f.count("intermediate_size"),
        num_shared_experts=1,
        score="sigmoid",
        normalized_weights=False,
        weighted_inputs=True,
    )
    return decoder(f, layers(each), experts, _rms(f, 1e-5))


def first_attention(config: DecoderConfig) -> Any:
    """The attention of the first layer of a network in the form of :func:`canonical`."""
    assert isinstance(config.attention, LayerPattern)
    return config.attention.layers[0]


def _stablelm_names(config: DecoderConfig) -> NameMap:
    first = first_attention(config)
    return stablelm_names(first.num_heads, first.num_key_value_heads)


def _deepseek_names(config: DecoderConfig) -> NameMap:
    first = first_attention(config)
    sizes = (first.num_heads, first.head_dim, first.value_dim)
    return deepseek_v3_names(*sizes, compressed_queries=first.query_latent_size is not None)


_SIZES = (
    "vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads "
    "max_position_embeddings tie_word_embeddings"
)
_DENSE = f"{_SIZES} intermediate_size hidden_act rms_norm_eps=eps"
_ROPE = "rope_theta rope_scaling rope_parameters partial_rotary_factor"
_LOCAL = "rope_theta attention_bias sliding_window layer_types"
_QWEN = f"{_DENSE} {_ROPE} sliding_window use_sliding_window max_window_layers"
_GEMMA_ENTRIES = (
    f"{_SIZES} intermediate_size hidden_activation=hidden_act rms_norm_eps=eps head_dim attention_bias "
    "query_pre_attn_scalar attn_logit_softcapping final_logit_softcapping sliding_window layer_types "
    "rope_theta rope_scaling"
)
_MIXTURE = f"{_SIZES} rms_norm_eps=eps head_dim num_experts_per_tok {_ROPE} sliding_window"


def _family(model_type: str, architecture: str, read: Any, names: Any, entries: str) -> Family:
    make_names = (lambda config: names) if isinstance(names, NameMap) else names
    return Family(model_type, f"{architecture}ForCausalLM", read, make_names, entries)


LLAMA_FAMILIES = (
    _family("llama", "Llama", _llama, LLAMA, f"{_DENSE} {_ROPE} head_dim attention_bias mlp_bias"),
    _family("qwen3", "Qwen3", _qwen3, LLAMA, f"{_QWEN} head_dim attention_bias layer_types"),
    _family("mistral", "Mistral", _mistral, LLAMA, f"{_DENSE} {_ROPE} head_dim sliding_window"),
    _family("qwen2", "Qwen2", _qwen2, LLAMA, f"{_QWEN} layer_types"),
    _family(
        "smollm3", "SmolLM3", _smollm3, LLAMA, f"{_DENSE} {_ROPE} attention_bias mlp_bias no_rope_layers"
    ),
    _family(
        "granite",
        "Granite",
        _granite,
        LLAMA,
        f"{_DENSE} {_ROPE} attention_bias mlp_bias embedding_multiplier logits_scaling residual_multiplier "
        "attention_multiplier",
    ),
    _family(
        "cohere",
        "Cohere",
        _cohere,
        LLAMA,
        f"{_SIZES} intermediate_size hidden_act layer_norm_eps=eps {_ROPE} attention_bias logit_scale "
        "use_qk_norm=has_qk_norm",
    ),
    _family(
        "stablelm",
        "StableLm",
        _stablelm,
        _stablelm_names,
        f"{_SIZES} intermediate_size hidden_act layer_norm_eps=eps {_ROPE} use_qkv_bias=attention_bias "
        "qk_layernorm=has_qk_norm use_parallel_residual=is_parallel",
    ),
    _family("olmo2", "Olmo2", _olmo2, OLMO2, f"{_DENSE} {_ROPE} attention_bias"),
    # Without the scaling, which transformers applies to other layers than the published model does.
    _family(
        "olmo3", "Olmo3", _olmo3, OLMO2, f"{_DENSE} rope_theta attention_bias sliding_window layer_types"
    ),
    _family("gemma2", "Gemma2", _gemma2, GEMMA, f"{_GEMMA_ENTRIES} rope_parameters"),
    _family(
        "gemma3_text",
        "Gemma3",
        _gemma3,
        GEMMA,
        f"{_GEMMA_ENTRIES} rope_parameters=rope_parameters_by_kind rope_local_base_freq=local_rope_theta",
    ),
    _family("glm4", "Glm4", _glm4, GLM4, f"{_DENSE} {_ROPE} head_dim attention_bias"),
    _family("phi3", "Phi3", _phi3, PHI3, f"{_DENSE} {_ROPE} sliding_window original_max_position_embeddings"),
    _family("diffllama", "DiffLlama", _diffllama, DIFFLLAMA, f"{_DENSE} {_ROPE} head_dim attention_bias"),
    _family(
        "mixtral",
        "Mixtral",
        _mixtral,
        MIXTRAL,
        f"{_MIXTURE} num_local_experts=num_experts intermediate_size=moe_intermediate_size",
    ),
    _family(
        "qwen2_moe",
        "Qwen2Moe",
        _qwen2_moe,
        QWEN_MOE,
        f"{_MIXTURE} num_experts moe_intermediate_size use_sliding_window max_window_layers layer_types "
        "shared_expert_intermediate_size=shared_intermediate_size norm_topk_prob qkv_bias=attention_bias",
    ),
    _family(
        "qwen3_moe",
        "Qwen3Moe",
        _qwen3_moe,
        QWEN_MOE,
        f"{_MIXTURE} num_experts moe_intermediate_size use_sliding_window norm_topk_prob attention_bias",
    ),
    _family(
        "gpt_oss",
        "GptOss",
        _gpt_oss,
        GPT_OSS,
        f"{_MIXTURE} num_local_experts=num_experts intermediate_size=moe_intermediate_size layer_types",
    ),
    _family(
        "deepseek_v3",
        "DeepseekV3",
        _deepseek_v3,
        _deepseek_names,
        f"{_DENSE} {_ROPE} kv_lora_rank q_lora_rank qk_rope_head_dim qk_nope_head_dim v_head_dim "
        "n_routed_experts=num_experts num_experts_per_tok moe_intermediate_size "
        "n_shared_experts=num_shared_experts norm_topk_prob routed_scaling_factor n_group topk_group "
        "first_k_dense_replace=num_dense_layers",
    ),
    _family(
        "llama4_text",
        "Llama4",
        _llama4,
        LLAMA4,
        f"{_SIZES} rms_norm_eps=eps head_dim rope_theta rope_scaling rope_parameters attention_bias "
        "num_local_experts=num_experts num_experts_per_tok intermediate_size=moe_intermediate_size "
        "attention_chunk_size floor_scale attn_scale no_rope_layers layer_types use_qk_norm=has_qk_norm",
    ),
)
"""In the order of preference where several can say the same."""
