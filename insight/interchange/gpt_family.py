"""The families of GPT's kind, with plain feed-forwards: from a config.json to a network."""

from __future__ import annotations

from typing import Any

from insight.interchange.config_fields import Fields
from insight.interchange.family import Family
from insight.interchange.gpt import (
    GPT2,
    GPTJ,
    MPT,
    NEMOTRON,
    PHI,
    STARCODER2,
    bloom_names,
    falcon_names,
    gpt_neox_names,
)
from insight.interchange.llama_family import decoder, first_attention, heads
from insight.interchange.name_map import NameMap
from insight.models import (
    MLP,
    Alibi,
    DecoderConfig,
    GroupedQueryAttention,
    InterleavedRope,
    LayerNorm,
    LearnedPosition,
    NoPosition,
    OffsetLayerNorm,
    ParallelResidual,
    PreNorm,
)

_BIASED: dict[str, bool] = {"qkv_bias": True, "output_bias": True}
_SHARED = ParallelResidual(shared_norm=True)


def _mlp(f: Fields, key: str, default: str, bias: bool, width: str = "intermediate_size") -> MLP:
    return MLP(f.count(width, None), f.activation(key, default), bias)


def _gpt2(f: Fields) -> DecoderConfig:
    f.require("scale_attn_weights", True, True)
    f.require("scale_attn_by_inverse_layer_idx", False, False)
    f.require("add_cross_attention", False, False)
    return DecoderConfig(
        f.count("n_embd"),
        f.count("n_layer"),
        GroupedQueryAttention(f.count("n_head"), position=NoPosition(), **_BIASED),  # type: ignore[arg-type]
        _mlp(f, "activation_function", "gelu_new", True, "n_inner"),
        LayerNorm(f.number("layer_norm_epsilon", 1e-5)),
        f.count("n_positions", 1024),
        tie_embeddings=f.flag("tie_word_embeddings", True),
        input_position=LearnedPosition(),
    )


def _gptj(f: Fields) -> DecoderConfig:
    size, num_heads = f.count("n_embd"), f.count("n_head")
    rotated = f.count("rotary_dim", 64) or size // num_heads
    position = InterleavedRope(rotated_share=rotated * num_heads / size)
    tied = f.flag("tie_word_embeddings", False)
    return DecoderConfig(
        size,
        f.count("n_layer"),
        GroupedQueryAttention(num_heads, position=position),
        _mlp(f, "activation_function", "gelu_new", True, "n_inner"),
        LayerNorm(f.number("layer_norm_epsilon", 1e-5)),
        f.count("n_positions", 2048),
        tie_embeddings=tied,
        head_bias=not tied,
        block=_SHARED,
    )


def _gpt_neox(f: Fields) -> DecoderConfig:
    biases = dict.fromkeys(_BIASED, f.flag("attention_bias", True))
    share = f.number("rotary_pct", 0.25)
    attention = heads(f, position=f.rope(share=share, base_key="rotary_emb_base"), **biases)
    block = ParallelResidual() if f.flag("use_parallel_residual", True) else PreNorm()
    norm = LayerNorm(f.number("layer_norm_eps", 1e-5))
    return decoder(f, attention, _mlp(f, "hidden_act", "gelu", True), norm, block=block)


def _phi(f: Fields) -> DecoderConfig:
    f.require("qk_layernorm", False, False)
    attention = heads(f, position=f.rope(share=0.5), **_BIASED)
    norm = LayerNorm(f.number("layer_norm_eps", 1e-5))
    bias = not f.flag("tie_word_embeddings", False)
    feed_forward = _mlp(f, "hidden_act", "gelu_new", True)
    return decoder(f, attention, feed_forward, norm, block=_SHARED, head_bias=bias)


def _starcoder2(f: Fields) -> DecoderConfig:
    bias = f.flag("use_bias", True)
    window = f.window(None)
    attention = heads(f, window=window, qkv_bias=bias, output_bias=bias)
    norm = LayerNorm(f.number("norm_epsilon", 1e-5))
    return decoder(f, attention, _mlp(f, "hidden_act", "gelu_pytorch_tanh", bias), norm, tied=True)


def _nemotron(f: Fields) -> DecoderConfig:
    biases = dict.fromkeys(_BIASED, f.flag("attention_bias", False))
    attention = heads(f, position=f.rope(share=0.5), **biases)
    feed_forward = _mlp(f, "hidden_act", "relu2", f.flag("mlp_bias", False))
    return decoder(f, attention, feed_forward, OffsetLayerNorm(f.number("norm_eps", 1e-5)))


def _bloom(f: Fields) -> DecoderConfig:
    f.require("apply_residual_connection_post_layernorm", False, False)
    f.require("slow_but_exact", False, False)
    norm = LayerNorm(f.number("layer_norm_epsilon", 1e-5))
    num_heads = f.values.get("num_attention_heads") or f.count("n_head")
    size = f.values.get("n_embed") or f.count("hidden_size")
    return DecoderConfig(
        size,
        f.values.get("num_hidden_layers") or f.count("n_layer"),
        GroupedQueryAttention(num_heads, position=Alibi(), **_BIASED),  # type: ignore[arg-type]
        MLP(None, "gelu_tanh", True),
        norm,
        f.count("seq_length", 2048),
        tie_embeddings=f.flag("tie_word_embeddings", True),
        embedding_norm=norm,
    )


def _mpt(f: Fields) -> DecoderConfig:
    options = Fields(f.get("attn_config", None) or {}, f"{f.name}: attn_config")
    options.require("alibi", True, True)
    options.require("alibi_bias_max", 8, 8)
    for key in ("clip_qkv", "softmax_scale"):
        options.require(key, None, None)
    options.require("attn_type", "multihead_attention", "multihead_attention")
    options.require("qk_ln", False, False)
    f.require("no_bias", True, True)
    f.require("logit_scale", None, None)
    size = f.count("d_model")
    return DecoderConfig(
        size,
        f.count("n_layers"),
        GroupedQueryAttention(f.count("n_heads"), position=Alibi()),
        MLP(size * f.count("expansion_ratio", 4)),
        LayerNorm(f.number("layer_norm_epsilon", 1e-5), bias=False),
        f.count("max_seq_len", 2048),
        tie_embeddings=f.flag("tie_word_embeddings", True),
    )


def _falcon(f: Fields) -> DecoderConfig:
    num_heads, size = f.count("num_attention_heads"), f.count("hidden_size")
    grouped, bias = f.flag("new_decoder_architecture", False), f.flag("bias", False)
    alibi, multi_query = f.flag("alibi", False), f.flag("multi_query", True)
    num_keys = 1 if multi_query else num_heads
    if grouped:
        num_keys = f.count("num_kv_heads", None) or num_heads
    position: Any = Alibi((size // max(1, num_heads)) ** -0.5) if alibi else f.rope()
    if grouped:
        block: Any = ParallelResidual(shared_norm=f.count("num_ln_in_parallel_attn", 2) == 1)
    else:
        block = _SHARED if f.flag("parallel_attn", True) else PreNorm()
    biases = dict.fromkeys(_BIASED, bias)
    attention = GroupedQueryAttention(num_heads, num_keys, position=position, **biases)  # type: ignore[arg-type]
    feed_forward = _mlp(f, "activation", "gelu", bias, "ffn_hidden_size")
    norm = LayerNorm(f.number("layer_norm_epsilon", 1e-5))
    return decoder(f, attention, feed_forward, norm, tied=True, block=block)


def _gpt_neox_names(config: DecoderConfig) -> NameMap:
    first = first_attention(config)
    return gpt_neox_names(first.num_heads, first.head_dim)


def _bloom_names(config: DecoderConfig) -> NameMap:
    first = first_attention(config)
    return bloom_names(first.num_heads, first.head_dim)


def _falcon_names(config: DecoderConfig) -> NameMap:
    first, block = first_attention(config), config.block
    sizes = (first.num_heads, first.num_key_value_heads, first.head_dim)
    parallel = isinstance(block, ParallelResidual)
    return falcon_names(*sizes, getattr(block, "shared_norm", False), parallel)


_GPT = (
    "vocab_size n_embd=hidden_size n_layer=num_hidden_layers n_head=num_attention_heads tie_word_embeddings"
)
_GPT_REST = (
    "n_inner=intermediate_size n_positions=max_position_embeddings activation_function=hidden_act "
    "layer_norm_epsilon=eps"
)
_SIZES = (
    "vocab_size hidden_size num_hidden_layers num_attention_heads max_position_embeddings "
    "tie_word_embeddings rope_theta rope_scaling rope_parameters partial_rotary_factor"
)
_DENSE = f"{_SIZES} num_key_value_heads intermediate_size hidden_act"

GPT_FAMILIES = (
    Family("gpt2", "GPT2LMHeadModel", _gpt2, lambda config: GPT2, f"{_GPT} {_GPT_REST}"),
    Family("gptj", "GPTJForCausalLM", _gptj, lambda config: GPTJ, f"{_GPT} {_GPT_REST} rotary_dim"),
    Family(
        "gpt_neox",
        "GPTNeoXForCausalLM",
        _gpt_neox,
        _gpt_neox_names,
        f"{_SIZES} intermediate_size hidden_act layer_norm_eps=eps attention_bias rotary_pct "
        "rotary_emb_base=rope_theta use_parallel_residual=is_parallel",
    ),
    Family("phi", "PhiForCausalLM", _phi, lambda config: PHI, f"{_DENSE} layer_norm_eps=eps"),
    Family(
        "starcoder2",
        "Starcoder2ForCausalLM",
        _starcoder2,
        lambda config: STARCODER2,
        f"{_DENSE} norm_epsilon=eps use_bias=mlp_bias sliding_window",
        {"embedding_dropout": 0.0, "residual_dropout": 0.0, "attention_dropout": 0.0},
    ),
    Family(
        "nemotron",
        "NemotronForCausalLM",
        _nemotron,
        lambda config: NEMOTRON,
        f"{_DENSE} norm_eps=eps head_dim attention_bias mlp_bias",
    ),
    Family(
        "bloom",
        "BloomForCausalLM",
        _bloom,
        _bloom_names,
        "vocab_size hidden_size n_layer=num_hidden_layers n_head=num_attention_heads tie_word_embeddings "
        "seq_length=max_position_embeddings layer_norm_epsilon=eps",
        {"hidden_dropout": 0.0, "attention_dropout": 0.0},
    ),
    Family(
        "mpt",
        "MptForCausalLM",
        _mpt,
        lambda config: MPT,
        "vocab_size d_model=hidden_size n_layers=num_hidden_layers n_heads=num_attention_heads "
        "max_seq_len=max_position_embeddings tie_word_embeddings layer_norm_epsilon=eps",
    ),
    Family(
        "falcon",
        "FalconForCausalLM",
        _falcon,
        _falcon_names,
        f"{_SIZES} ffn_hidden_size=intermediate_size activation=hidden_act layer_norm_epsilon=eps "
        "multi_query=is_multi_query num_kv_heads=num_key_value_heads bias=attention_bias alibi=is_alibi "
        "new_decoder_architecture=has_two_norms parallel_attn=is_parallel",
    ),
)
"""In the order of preference where several can say the same."""
