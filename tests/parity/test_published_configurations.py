"""Presets against the configurations that were published: sizes counted by transformers, and every number.

The tables hold what stands in ``config.json`` of each published model, in the words of transformers. Where a
word is missing, its value is transformers' default for the architecture, as it was for the model itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from insight.models import (
    PRESETS,
    Alibi,
    BalanceBias,
    DecoderConfig,
    GroupedQueryAttention,
    HeadNorm,
    LatentAttention,
    LayerNorm,
    LayerPattern,
    LearnedPosition,
    Llama3Scaling,
    MixtureOfExperts,
    NoPosition,
    QueryTemperature,
    Rope,
    YarnScaling,
)

transformers = pytest.importorskip("transformers")

_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def _plain(theta: float, **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta} | more


PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "bloom-560m": ("Bloom", {"vocab_size": 250880, "hidden_size": 1024, "n_layer": 24, "n_head": 16}),
    "deepseek-v3": (
        "DeepseekV3",
        {
            "vocab_size": 129280,
            "hidden_size": 7168,
            "intermediate_size": 18432,
            "moe_intermediate_size": 2048,
            "num_hidden_layers": 61,
            "num_attention_heads": 128,
            "num_key_value_heads": 128,
            "n_shared_experts": 1,
            "n_routed_experts": 256,
            "routed_scaling_factor": 2.5,
            "kv_lora_rank": 512,
            "q_lora_rank": 1536,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "qk_nope_head_dim": 128,
            "n_group": 8,
            "topk_group": 4,
            "num_experts_per_tok": 8,
            "first_k_dense_replace": 3,
            "norm_topk_prob": True,
            "max_position_embeddings": 163840,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "beta_fast": 32,
                "beta_slow": 1,
                "factor": 40.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "original_max_position_embeddings": 4096,
            },
        },
    ),
    "diffllama-1b": ("DiffLlama", {}),
    "falcon-7b": (
        "Falcon",
        {
            "vocab_size": 65024,
            "hidden_size": 4544,
            "num_hidden_layers": 32,
            "num_attention_heads": 71,
            "multi_query": True,
            "parallel_attn": True,
            "bias": False,
            "alibi": False,
            "new_decoder_architecture": False,
            "layer_norm_epsilon": 1e-5,
        },
    ),
    "gemma-2-2b": (
        "Gemma2",
        {
            "vocab_size": 256000,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6,
        },
    ),
    "gemma-3-1b": (
        "Gemma3Text",
        {
            "vocab_size": 262144,
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "num_hidden_layers": 26,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 512,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "sliding_attention": _plain(10000.0),
                "full_attention": _plain(1000000.0),
            },
        },
    ),
    "gpt-oss-20b": (
        "GptOss",
        {
            "vocab_size": 201088,
            "hidden_size": 2880,
            "intermediate_size": 2880,
            "num_hidden_layers": 24,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "num_local_experts": 32,
            "num_experts_per_tok": 4,
            "sliding_window": 128,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "factor": 32.0,
                "truncate": False,
                "original_max_position_embeddings": 4096,
            },
        },
    ),
    "gpt2": ("GPT2", {}),
    "llama-2-7b": (
        "Llama",
        {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "rope_parameters": _plain(10000.0),
        },
    ),
    "llama-3.1-8b": (
        "Llama",
        {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_parameters": _LLAMA3 | {"factor": 8.0},
        },
    ),
    "llama-3.2-1b": (
        "Llama",
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "rope_parameters": _LLAMA3 | {"factor": 32.0},
        },
    ),
    "mistral-7b": (
        "Mistral",
        {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "rope_parameters": _plain(10000.0),
        },
    ),
    "mixtral-8x7b": (
        "Mixtral",
        {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "sliding_window": None,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "rope_parameters": _plain(1000000.0),
        },
    ),
    "moonlight-16b": (
        "DeepseekV3",
        {
            "vocab_size": 163840,
            "hidden_size": 2048,
            "intermediate_size": 11264,
            "moe_intermediate_size": 1408,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "n_shared_experts": 2,
            "n_routed_experts": 64,
            "routed_scaling_factor": 2.446,
            "kv_lora_rank": 512,
            "q_lora_rank": None,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "qk_nope_head_dim": 128,
            "n_group": 1,
            "topk_group": 1,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
            "norm_topk_prob": True,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_parameters": _plain(50000.0),
        },
    ),
    "mpt-7b": (
        "Mpt",
        {"vocab_size": 50432, "d_model": 4096, "n_layers": 32, "n_heads": 32, "max_seq_len": 2048},
    ),
    "olmo-2-7b": (
        "Olmo2",
        {
            "vocab_size": 100352,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "rope_parameters": _plain(500000.0),
        },
    ),
    "phi-3-mini": (
        "Phi3",
        {
            "vocab_size": 32064,
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "sliding_window": 2047,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "rope_parameters": _plain(10000.0),
        },
    ),
    "pythia-160m": (
        "GPTNeoX",
        {
            "vocab_size": 50304,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "max_position_embeddings": 2048,
            "layer_norm_eps": 1e-5,
            "use_parallel_residual": True,
            "rope_parameters": _plain(10000.0, partial_rotary_factor=0.25),
        },
    ),
    "qwen-2-0.5b": (
        "Qwen2",
        {
            "vocab_size": 151936,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "rope_parameters": _plain(1000000.0),
        },
    ),
    "qwen-3-0.6b": (
        "Qwen3",
        {
            "vocab_size": 151936,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 40960,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "rope_parameters": _plain(1000000.0),
        },
    ),
    "smollm-2-135m": (
        "Llama",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "rope_parameters": _plain(100000.0),
        },
    ),
    "smollm-3-3b": (
        "SmolLM3",
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "no_rope_layer_interval": 4,
            "max_position_embeddings": 65536,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "rope_parameters": _plain(5000000.0),
        },
    ),
    "command-r-plus": (
        "Cohere",
        {
            "vocab_size": 256000,
            "hidden_size": 12288,
            "intermediate_size": 33792,
            "num_hidden_layers": 64,
            "num_attention_heads": 96,
            "num_key_value_heads": 8,
            # As on the model card and in model_max_length; their file says 8192 here.
            "max_position_embeddings": 131072,
            "logit_scale": 0.8333333333333334,
            "use_qk_norm": True,
            "layer_norm_eps": 1e-5,
            "rope_parameters": _plain(75000000.0),
        },
    ),
    "glm-4-9b": (
        "Glm4",
        {
            "vocab_size": 151552,
            "hidden_size": 4096,
            "intermediate_size": 13696,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "attention_bias": True,
            "rope_parameters": _plain(10000.0, partial_rotary_factor=0.5),
        },
    ),
    "gpt-j-6b": (
        "GPTJ",
        {"vocab_size": 50400, "n_positions": 2048, "n_embd": 4096, "n_layer": 28, "n_head": 16}
        | {"rotary_dim": 64, "tie_word_embeddings": False},
    ),
    "granite-3.1-2b": (
        "Granite",
        {
            "vocab_size": 49155,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": True,
            "rms_norm_eps": 1e-5,
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.015625,
            "residual_multiplier": 0.22,
            "logits_scaling": 8.0,
            "rope_parameters": _plain(5000000.0),
        },
    ),
    "llama-4-scout": (
        "Llama4Text",
        {
            "max_position_embeddings": 10485760,
            "rope_parameters": _LLAMA3
            | {"factor": 16.0, "high_freq_factor": 1.0, "original_max_position_embeddings": 8192},
        },
    ),
    "minitron-4b": (
        "Nemotron",
        {
            "vocab_size": 256000,
            "hidden_size": 3072,
            "intermediate_size": 9216,
            "num_hidden_layers": 32,
            "num_attention_heads": 24,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 4096,
            "norm_eps": 1e-5,
            "rope_parameters": _plain(10000.0, partial_rotary_factor=0.5),
        },
    ),
    "olmo-3-7b": (
        "Olmo3",
        {
            "vocab_size": 100278,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 65536,
            "sliding_window": 4096,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "beta_fast": 32,
                "beta_slow": 1,
                "attention_factor": 1.2079441541679836,
                "original_max_position_embeddings": 8192,
            },
        },
    ),
    "phi-2": (
        "Phi",
        {
            "vocab_size": 51200,
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 2048,
            "rope_parameters": _plain(10000.0, partial_rotary_factor=0.4),
        },
    ),
    "qwen-1.5-moe": (
        "Qwen2Moe",
        {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "max_position_embeddings": 8192,
            "use_sliding_window": False,
            "num_experts": 60,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
            "norm_topk_prob": False,
            "rms_norm_eps": 1e-6,
            "rope_parameters": _plain(1000000.0),
        },
    ),
    "qwen-3-30b-a3b": (
        "Qwen3Moe",
        {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "max_position_embeddings": 40960,
            "use_sliding_window": False,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
            "norm_topk_prob": True,
            "rope_parameters": _plain(1000000.0),
        },
    ),
    "stablelm-2-12b": (
        "StableLm",
        {
            "vocab_size": 100352,
            "hidden_size": 5120,
            "intermediate_size": 13824,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 4096,
            "qk_layernorm": True,
            "use_parallel_residual": True,
            "layer_norm_eps": 1e-5,
            "rope_parameters": _plain(10000.0, partial_rotary_factor=0.25),
        },
    ),
    "starcoder2-3b": (
        "Starcoder2",
        {
            "vocab_size": 49152,
            "hidden_size": 3072,
            "intermediate_size": 12288,
            "num_hidden_layers": 30,
            "num_attention_heads": 24,
            "num_key_value_heads": 2,
            "max_position_embeddings": 16384,
            "sliding_window": 4096,
            "tie_word_embeddings": True,
            "norm_epsilon": 1e-5,
            "rope_parameters": _plain(999999.4420358813),
        },
    ),
}


def theirs(name: str) -> Any:
    family, numbers = PUBLISHED[name]
    config = getattr(transformers, f"{family}Config")(**numbers)
    if family == "Qwen2Moe":
        config.sliding_window = None  # no layer has one
    return config


def attentions(config: DecoderConfig) -> list[Any]:
    """Our attention, layer by layer."""
    pattern = config.attention
    if not isinstance(pattern, LayerPattern):
        return [pattern] * config.num_layers
    return [pattern.layers[layer % len(pattern.layers)] for layer in range(config.num_layers)]


def test_every_preset_is_here() -> None:
    # Encoders and encoder-decoders have tables of their own.
    decoders = {name for name, preset in PRESETS.items() if isinstance(preset.config, DecoderConfig)}
    assert decoders == set(PUBLISHED)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_transformers_counts_the_same_parameters(name: str) -> None:
    preset = PRESETS[name]
    with torch.device("meta"):
        ours = preset.config.build(preset.vocabulary_size)
        reference = transformers.AutoModelForCausalLM.from_config(theirs(name))
    assert ours.num_parameters() == sum(parameter.numel() for parameter in reference.parameters())


def _scale(config: Any) -> float:
    """The factor of the scores that is written in their configuration."""
    if getattr(config, "kv_lora_rank", None):
        factor = config.rope_parameters.get("factor", 1.0)
        mscale = 0.1 * config.rope_parameters.get("mscale_all_dim", 0.0) * math.log(factor) + 1.0
        return float((config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5 * mscale**2)
    if hasattr(config, "attention_multiplier"):
        return float(config.attention_multiplier)
    scalar = getattr(config, "query_pre_attn_scalar", None)
    return float((scalar or _head_dim(config)) ** -0.5)


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _rope(config: Any, layer: int) -> dict[str, Any]:
    if config.model_type == "gptj":
        return _plain(10000.0, partial_rotary_factor=config.rotary_dim / _head_dim(config))
    parameters: dict[str, Any] = config.rope_parameters
    layers = getattr(config, "layer_types", None)
    if config.model_type == "olmo3" and layers[layer] == "sliding_attention":
        return _plain(parameters["rope_theta"])  # the published model scales the global layers alone
    return parameters[layers[layer]] if layers and layers[layer] in parameters else parameters


def _window(config: Any, layer: int) -> int | None:
    layers = getattr(config, "layer_types", None)
    if layers and layers[layer] != "sliding_attention":
        return None
    if not getattr(config, "use_sliding_window", True):
        return None
    return getattr(config, "sliding_window", None)


def _check_rotation(position: Any, parameters: dict[str, Any]) -> None:
    assert position.base == parameters["rope_theta"]
    assert position.rotated_share == parameters.get("partial_rotary_factor", 1.0)
    kind, scaling = parameters["rope_type"], position.scaling
    if kind == "default":
        assert scaling is None
        return
    assert scaling.factor == parameters["factor"]
    assert scaling.original_length == parameters["original_max_position_embeddings"]
    if kind == "llama3":
        assert isinstance(scaling, Llama3Scaling)
        assert scaling.low_frequency_factor == parameters["low_freq_factor"]
        assert scaling.high_frequency_factor == parameters["high_freq_factor"]
    else:
        assert kind == "yarn"
        assert isinstance(scaling, YarnScaling)
        assert scaling.beta_fast == parameters["beta_fast"]
        assert scaling.beta_slow == parameters["beta_slow"]
        assert scaling.truncate == parameters.get("truncate", True)
        expected = parameters.get("attention_factor")
        if "mscale" in parameters:
            expected = parameters["mscale"] / parameters["mscale_all_dim"]
        assert scaling.attention_factor == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_that_change_no_size(name: str) -> None:
    config, published = PRESETS[name].config, theirs(name)
    assert isinstance(config, DecoderConfig)
    assert config.tie_embeddings == published.tie_word_embeddings
    longest = next(
        (
            value
            for word in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
            if (value := getattr(published, word, None))
        ),
        2048,
    )
    assert config.max_sequence_length == longest
    epsilons = ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_eps", "norm_epsilon")
    eps = next(getattr(published, word) for word in epsilons if hasattr(published, word))
    assert config.norm.eps == eps  # type: ignore[attr-defined]
    assert config.logit_soft_cap == getattr(published, "final_logit_softcapping", None)
    if published.model_type in ("cohere", "granite"):
        factor = getattr(published, "logit_scale", None) or 1 / published.logits_scaling
        assert config.output_scale == factor
        assert config.embedding_scale == getattr(published, "embedding_multiplier", None)
        assert config.block.branch_scale == getattr(published, "residual_multiplier", 1.0)
    for layer, attention in enumerate(attentions(config)):
        assert attention.num_heads == published.num_attention_heads
        scale = attention.score_scale
        if isinstance(attention, LatentAttention):
            scale = scale or (attention.head_dim + attention.rotary_dim) ** -0.5
        else:
            assert isinstance(attention, GroupedQueryAttention)
            scale = scale or _head_dim(published) ** -0.5
            assert attention.score_soft_cap == getattr(published, "attn_logit_softcapping", None)
            if isinstance(attention.qk_norm, HeadNorm):
                assert attention.qk_norm.norm.eps == eps  # type: ignore[attr-defined]
        assert scale == pytest.approx(_scale(published))
        assert attention.window == _window(published, layer)
        is_chunked = "chunked_attention" in (getattr(published, "layer_types", None) or [])[layer : layer + 1]
        assert getattr(attention, "chunk_size", None) == (
            published.attention_chunk_size if is_chunked else None
        )
        has_rotation = not hasattr(published, "no_rope_layers") or published.no_rope_layers[layer]
        if isinstance(attention.position, Rope):
            assert has_rotation
            _check_rotation(attention.position, _rope(published, layer))
        elif isinstance(attention.position, NoPosition):
            assert not has_rotation or isinstance(config.input_position, LearnedPosition)
        elif isinstance(attention.position, QueryTemperature):
            assert not has_rotation
            assert attention.position == QueryTemperature(published.floor_scale, published.attn_scale)
        else:
            assert isinstance(attention.position, Alibi)


def _qwen_experts(published: Any) -> dict[str, Any]:
    return {
        "intermediate_size": published.moe_intermediate_size,
        "num_experts": published.num_experts,
        "normalized_weights": published.norm_topk_prob,
    }


MIXTURES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "mixtral-8x7b": lambda published: {},
    "gpt-oss-20b": lambda published: {"gate": "clamped", "expert_bias": True, "router_bias": True},
    "qwen-1.5-moe": lambda published: (
        _qwen_experts(published)
        | {
            "num_shared_experts": published.shared_expert_intermediate_size
            // published.moe_intermediate_size,
            "shared_gate": True,
        }
    ),
    "qwen-3-30b-a3b": lambda published: _qwen_experts(published),
    "llama-4-scout": lambda published: {
        "num_shared_experts": 1,
        "score": "sigmoid",
        "normalized_weights": False,
        "weighted_inputs": True,
    },
    **dict.fromkeys(
        ("deepseek-v3", "moonlight-16b"),
        lambda published: {
            "intermediate_size": published.moe_intermediate_size,
            "num_experts": published.n_routed_experts,
            "num_shared_experts": published.n_shared_experts,
            "score": "sigmoid",
            "normalized_weights": published.norm_topk_prob,
            "weight_scale": published.routed_scaling_factor,
            "num_groups": published.n_group,
            "num_groups_per_token": published.topk_group,
            "balance": BalanceBias(0.001),
        },
    ),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures(name: str) -> None:
    config, published = PRESETS[name].config, theirs(name)
    pattern: Any = config.feed_forward
    mixture = pattern.layers[0] if hasattr(pattern, "layers") else pattern
    common = {"num_experts_per_token": published.num_experts_per_tok} | (
        {"intermediate_size": published.intermediate_size, "num_experts": published.num_local_experts}
        if "moe_intermediate_size" not in PUBLISHED[name][1]
        else {}
    )
    assert mixture == MixtureOfExperts(**(common | MIXTURES[name](published)))
    if hasattr(pattern, "first"):
        assert len(pattern.first) == published.first_k_dense_replace
        assert {each.intermediate_size for each in pattern.first} == {published.intermediate_size}


def test_a_wrong_number_is_found() -> None:
    _, numbers = PUBLISHED["llama-3.2-1b"]
    with torch.device("meta"):
        reference = transformers.AutoModelForCausalLM.from_config(
            transformers.LlamaConfig(**(numbers | {"intermediate_size": 8193}))
        )
        preset = PRESETS["llama-3.2-1b"]
        ours = preset.config.build(preset.vocabulary_size)
    assert ours.num_parameters() != sum(parameter.numel() for parameter in reference.parameters())
    assert not isinstance(preset.config.norm, LayerNorm)
