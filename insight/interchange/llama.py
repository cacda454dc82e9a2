"""Weight names of the Llama family, with gated feed-forwards and mixtures: one table per architecture."""

from __future__ import annotations

import torch

from insight.interchange.name_map import Experts, NameMap, Rows, both, norms, top, transposed

_TOP = top("model.embed_tokens", "model.norm") | both("head", "lm_head")
_OUTPUT = both("attention.output", "self_attn.o_proj")
_ATTENTION = _OUTPUT | both(
    "attention.query_key_value", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"
)
_PRE_NORM = norms("input_layernorm", "post_attention_layernorm")
_ROUTER = both("feed_forward.router.projection", "mlp.gate")


def _head_norms(inner: str = "") -> dict[str, Rows]:
    query_norm = both(f"attention.query_norm{inner}", "self_attn.q_norm")
    return query_norm | both(f"attention.key_norm{inner}", "self_attn.k_norm")


def _output_norms(attention: str, feed_forward: str) -> dict[str, Rows]:
    return both("attention_output_norm", attention) | both("feed_forward_output_norm", feed_forward)


def _gated(ours: str, theirs: str) -> dict[str, Rows]:
    gate_up = both(f"{ours}.gate_up", f"{theirs}.gate_proj", f"{theirs}.up_proj")
    return gate_up | both(f"{ours}.down", f"{theirs}.down_proj")


def _experts(
    theirs: str, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj"
) -> dict[str, Rows]:
    """Experts one by one, as files hold them, or joined, as transformers holds them in memory."""
    module = theirs.removesuffix(".experts")
    files = "block_sparse_moe" if gate == "w1" else module
    names = [f"{files}.experts.{{expert}}.{name}.weight" for name in (gate, up, down)]
    return {
        "feed_forward.expert_gate_up.weight": Experts(*names[:2], otherwise=Rows(f"{theirs}.gate_up_proj")),
        "feed_forward.expert_down.weight": Experts(names[2], otherwise=Rows(f"{theirs}.down_proj")),
    }


def _joined_experts(theirs: str) -> dict[str, Rows]:
    return {
        f"feed_forward.expert_{ours}.weight": Rows(
            f"{theirs}.{name}", rearrange=transposed, restore=transposed
        )
        for ours, name in (("gate_up", "gate_up_proj"), ("down", "down_proj"))
    }


_FEED_FORWARD = _gated("feed_forward", "mlp")
_PACKED_FEED_FORWARD = {
    **both("feed_forward.gate_up", "mlp.gate_up_proj"),
    **both("feed_forward.down", "mlp.down_proj"),
}

LLAMA = NameMap(_TOP, _ATTENTION | _head_norms() | _FEED_FORWARD | _PRE_NORM)
"""Llama 1 to 3, Mistral, Qwen 2 and 3, SmolLM 2 and 3, Granite, Cohere."""

MIXTRAL = NameMap(
    _TOP,
    _ATTENTION
    | _PRE_NORM
    | {
        "feed_forward.router.projection.weight": Rows(
            "block_sparse_moe.gate.weight", otherwise=Rows("mlp.gate.weight")
        )
    }
    | _experts("mlp.experts", "w1", "w3", "w2"),
)

QWEN_MOE = NameMap(
    _TOP,
    {**LLAMA.block, **_ROUTER, **_experts("mlp.experts")}
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
    | _joined_experts("feed_forward.experts"),
)
"""The text model of Llama 4, whose experts are stored transposed."""

OLMO2 = NameMap(
    _TOP,
    _ATTENTION
    | _FEED_FORWARD
    | _head_norms(".norm")
    | norms("post_attention_layernorm", "post_feedforward_layernorm"),
)
"""OLMo 2 and 3."""

GEMMA = NameMap(
    _TOP,
    _ATTENTION
    | _head_norms()
    | _FEED_FORWARD
    | norms("input_layernorm", "pre_feedforward_layernorm")
    | _output_norms("post_attention_layernorm", "post_feedforward_layernorm"),
)
"""Gemma 2 and 3."""

GLM4 = NameMap(
    _TOP,
    _ATTENTION
    | _PACKED_FEED_FORWARD
    | _PRE_NORM
    | _output_norms("post_self_attn_layernorm", "post_mlp_layernorm"),
)

PHI3 = NameMap(
    _TOP,
    _PRE_NORM | _PACKED_FEED_FORWARD | _OUTPUT | both("attention.query_key_value", "self_attn.qkv_proj"),
)

DIFFLLAMA = NameMap(
    _TOP,
    {
        f"attention.weight_{ours}_{number}": Rows(f"self_attn.lambda_{theirs}{number}")
        for ours, theirs in (("query", "q"), ("key", "k"))
        for number in (1, 2)
    }
    | (_ATTENTION | _FEED_FORWARD | _PRE_NORM),
)


def stablelm_names(num_heads: int, num_key_value_heads: int) -> NameMap:
    """StableLM, which keeps the norm factors of each head in a separate module."""

    def head_norms(ours: str, theirs: str, count: int) -> dict[str, Rows]:
        names = [f"self_attn.{theirs}.norms.{head}" for head in range(count)]
        return both(
            f"attention.{ours}",
            *names,
            rearrange=lambda tensor: tensor.reshape(count, -1),
            restore=lambda tensor: tensor.flatten(),
        )

    query_norms = head_norms("query_norm", "q_layernorm", num_heads)
    key_norms = head_norms("key_norm", "k_layernorm", num_key_value_heads)
    return NameMap(_TOP, _ATTENTION | _FEED_FORWARD | _PRE_NORM | query_norms | key_norms)


def deepseek_v3_names(
    num_heads: int, head_dim: int, value_dim: int, compressed_queries: bool = True
) -> NameMap:
    """DeepSeek-V3 and Moonlight.

    Keys without position have ``head_dim`` channels and values ``value_dim``. Queries are made from a short
    vector (``compressed_queries``), as in DeepSeek-V3, or from the input, as in Moonlight.
    """

    def keys_before_values(tensor: torch.Tensor) -> torch.Tensor:
        heads = tensor.reshape(num_heads, head_dim + value_dim, *tensor.shape[1:])
        return torch.cat([part.flatten(0, 1) for part in torch.split(heads, [head_dim, value_dim], dim=1)])

    def heads_in_turn(tensor: torch.Tensor) -> torch.Tensor:
        keys, values = torch.split(tensor, [num_heads * head_dim, num_heads * value_dim])
        heads = [part.reshape(num_heads, -1, *tensor.shape[1:]) for part in (keys, values)]
        return torch.cat(heads, dim=1).flatten(0, 1)

    return NameMap(
        _TOP,
        _PRE_NORM
        | _FEED_FORWARD
        | _OUTPUT
        | both("attention.query_latent", "self_attn.q_a_proj")
        | both("attention.query_latent_norm", "self_attn.q_a_layernorm")
        | both("attention.query", f"self_attn.{'q_b_proj' if compressed_queries else 'q_proj'}")
        | both("attention.latent", "self_attn.kv_a_proj_with_mqa")
        | both("attention.latent_norm", "self_attn.kv_a_layernorm")
        | both(
            "attention.key_value",
            "self_attn.kv_b_proj",
            rearrange=keys_before_values,
            restore=heads_in_turn,
        )
        | _ROUTER
        | {"feed_forward.router.choice_bias": Rows("mlp.gate.e_score_correction_bias")}
        | _experts("mlp.experts")
        | _gated("feed_forward.shared", "mlp.shared_experts"),
    )


def _gate_before_up(tensor: torch.Tensor) -> torch.Tensor:
    """``(experts, 2 channels, ...)``: from gate and up alternating to all of gate, then all of up."""
    return torch.cat([tensor[:, 0::2], tensor[:, 1::2]], dim=1)


def _in_turn(tensor: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`_gate_before_up`."""
    gate, up = tensor.chunk(2, dim=1)
    return torch.stack([gate, up], dim=2).flatten(1, 2)


GPT_OSS = NameMap(
    _TOP,
    _ATTENTION
    | _PRE_NORM
    | both("feed_forward.router.projection", "mlp.router")
    | {
        "attention.sinks": Rows("self_attn.sinks"),
        "feed_forward.expert_gate_up.weight": Rows(
            "mlp.experts.gate_up_proj",
            rearrange=lambda tensor: _gate_before_up(tensor.mT),
            restore=lambda tensor: _in_turn(tensor).mT,
        ),
        "feed_forward.expert_gate_up.bias": Rows(
            "mlp.experts.gate_up_proj_bias", rearrange=_gate_before_up, restore=_in_turn
        ),
        "feed_forward.expert_down.weight": Rows(
            "mlp.experts.down_proj", rearrange=transposed, restore=transposed
        ),
        "feed_forward.expert_down.bias": Rows("mlp.experts.down_proj_bias"),
    },
)
"""gpt-oss, whose experts are stored transposed, with the channels of gate and up alternating."""
