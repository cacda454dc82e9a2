"""Weight names of the Llama family, with gated feed-forwards and mixtures: one table per architecture."""

from __future__ import annotations

import torch

from insight.interchange.name_map import NameMap, Rearrange, Rows, both, rows, transposed

_TOP = (
    {"embedding.weight": rows("model.embed_tokens.weight")}
    | both("norm", "model.norm")
    | both("head", "lm_head")
)
_ATTENTION = both(
    "attention.query_key_value", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"
) | both("attention.output", "self_attn.o_proj")
_HEAD_NORMS = both("attention.query_norm", "self_attn.q_norm") | both(
    "attention.key_norm", "self_attn.k_norm"
)


def _gated(ours: str, theirs: str) -> dict[str, Rows]:
    gate_up = both(f"{ours}.gate_up", f"{theirs}.gate_proj", f"{theirs}.up_proj")
    return gate_up | both(f"{ours}.down", f"{theirs}.down_proj")


def _experts(theirs: str, rearrange: Rearrange | None = None) -> dict[str, Rows]:
    return {
        "feed_forward.expert_gate_up.weight": rows(f"{theirs}.gate_up_proj", rearrange=rearrange),
        "feed_forward.expert_down.weight": rows(f"{theirs}.down_proj", rearrange=rearrange),
    }


_FEED_FORWARD = _gated("feed_forward", "mlp")
_PACKED_FEED_FORWARD = both("feed_forward.gate_up", "mlp.gate_up_proj") | both(
    "feed_forward.down", "mlp.down_proj"
)
_ROUTER = both("feed_forward.router.projection", "mlp.gate")
_PRE_NORM = both("attention_norm", "input_layernorm") | both("feed_forward_norm", "post_attention_layernorm")

LLAMA = NameMap(_TOP, _ATTENTION | _HEAD_NORMS | _FEED_FORWARD | _PRE_NORM)
"""Llama 1 to 3, Mistral, Qwen 2 and 3, SmolLM 2 and 3, Granite, Cohere."""

MIXTRAL = NameMap(_TOP, _ATTENTION | _PRE_NORM | _ROUTER | _experts("mlp.experts"))

QWEN_MOE = NameMap(
    _TOP,
    _ATTENTION
    | _HEAD_NORMS
    | _FEED_FORWARD
    | _PRE_NORM
    | _ROUTER
    | _experts("mlp.experts")
    | _gated("feed_forward.shared", "mlp.shared_expert")
    | both("feed_forward.shared_gate", "mlp.shared_expert_gate"),
)
"""Qwen 2 MoE and Qwen 3 MoE."""

LLAMA4 = NameMap(
    _TOP,
    _ATTENTION
    | _PRE_NORM
    | _gated("feed_forward", "feed_forward")
    | _gated("feed_forward.shared", "feed_forward.shared_expert")
    | both("feed_forward.router.projection", "feed_forward.router")
    | _experts("feed_forward.experts", transposed),
)
"""The text model of Llama 4, whose experts are stored transposed."""

OLMO2 = NameMap(
    _TOP,
    _ATTENTION
    | _FEED_FORWARD
    | both("attention.query_norm.norm", "self_attn.q_norm")
    | both("attention.key_norm.norm", "self_attn.k_norm")
    | both("attention_norm", "post_attention_layernorm")
    | both("feed_forward_norm", "post_feedforward_layernorm"),
)
"""OLMo 2 and 3."""

GEMMA = NameMap(
    _TOP,
    _ATTENTION
    | _HEAD_NORMS
    | _FEED_FORWARD
    | both("attention_norm", "input_layernorm")
    | both("attention_output_norm", "post_attention_layernorm")
    | both("feed_forward_norm", "pre_feedforward_layernorm")
    | both("feed_forward_output_norm", "post_feedforward_layernorm"),
)
"""Gemma 2 and 3."""

GLM4 = NameMap(
    _TOP,
    _ATTENTION
    | _PACKED_FEED_FORWARD
    | both("attention_norm", "input_layernorm")
    | both("attention_output_norm", "post_self_attn_layernorm")
    | both("feed_forward_norm", "post_attention_layernorm")
    | both("feed_forward_output_norm", "post_mlp_layernorm"),
)

PHI3 = NameMap(
    _TOP,
    _PRE_NORM
    | _PACKED_FEED_FORWARD
    | both("attention.query_key_value", "self_attn.qkv_proj")
    | both("attention.output", "self_attn.o_proj"),
)

DIFFLLAMA = NameMap(
    _TOP,
    _ATTENTION
    | _FEED_FORWARD
    | _PRE_NORM
    | {
        f"attention.weight_{ours}_{number}": rows(f"self_attn.lambda_{theirs}{number}")
        for ours, theirs in (("query", "q"), ("key", "k"))
        for number in (1, 2)
    },
)


def stablelm_names(num_heads: int, num_key_value_heads: int) -> NameMap:
    """StableLM, which keeps the norm factors of each head in a separate module."""

    def norms(ours: str, theirs: str, count: int) -> dict[str, Rows]:
        names = [f"self_attn.{theirs}.norms.{head}" for head in range(count)]
        return both(f"attention.{ours}", *names, rearrange=lambda tensor: tensor.reshape(count, -1))

    return NameMap(
        _TOP,
        _ATTENTION
        | _FEED_FORWARD
        | _PRE_NORM
        | norms("query_norm", "q_layernorm", num_heads)
        | norms("key_norm", "k_layernorm", num_key_value_heads),
    )


def deepseek_v3_names(
    num_heads: int, head_dim: int, value_dim: int, compressed_queries: bool = True
) -> NameMap:
    """DeepSeek-V3 and Moonlight.

    Args:
        num_heads: Number of heads.
        head_dim: Channels of a key without position.
        value_dim: Channels of a value.
        compressed_queries: Whether queries are made from a short vector, as in DeepSeek-V3, instead of from
            the input, as in Moonlight.
    """

    def keys_before_values(tensor: torch.Tensor) -> torch.Tensor:
        heads = tensor.reshape(num_heads, head_dim + value_dim, *tensor.shape[1:])
        return torch.cat([part.flatten(0, 1) for part in torch.split(heads, [head_dim, value_dim], dim=1)])

    return NameMap(
        _TOP,
        _PRE_NORM
        | _FEED_FORWARD
        | both("attention.query_latent", "self_attn.q_a_proj")
        | both("attention.query_latent_norm", "self_attn.q_a_layernorm")
        | both("attention.query", f"self_attn.{'q_b_proj' if compressed_queries else 'q_proj'}")
        | both("attention.latent", "self_attn.kv_a_proj_with_mqa")
        | both("attention.latent_norm", "self_attn.kv_a_layernorm")
        | both("attention.key_value", "self_attn.kv_b_proj", rearrange=keys_before_values)
        | both("attention.output", "self_attn.o_proj")
        | _ROUTER
        | {"feed_forward.router.choice_bias": rows("mlp.gate.e_score_correction_bias")}
        | _experts("mlp.experts")
        | _gated("feed_forward.shared", "mlp.shared_experts"),
    )


def _gate_before_up(tensor: torch.Tensor) -> torch.Tensor:
    """``(experts, 2 channels, ...)``: from gate and up alternating to all of gate, then all of up."""
    return torch.cat([tensor[:, 0::2], tensor[:, 1::2]], dim=1)


GPT_OSS = NameMap(
    _TOP,
    _ATTENTION
    | _PRE_NORM
    | both("feed_forward.router.projection", "mlp.router")
    | {
        "attention.sinks": rows("self_attn.sinks"),
        "feed_forward.expert_gate_up.weight": rows(
            "mlp.experts.gate_up_proj", rearrange=lambda tensor: _gate_before_up(tensor.mT)
        ),
        "feed_forward.expert_gate_up.bias": rows("mlp.experts.gate_up_proj_bias", rearrange=_gate_before_up),
        "feed_forward.expert_down.weight": rows("mlp.experts.down_proj", rearrange=transposed),
        "feed_forward.expert_down.bias": rows("mlp.experts.down_proj_bias"),
    },
)
"""gpt-oss, whose experts are stored transposed, with the channels of gate and up alternating."""
