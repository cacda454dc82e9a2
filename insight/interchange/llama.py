"""Weight names of Llama and its relatives: Mistral, Qwen, Phi-3, OLMo 2, Gemma, DeepSeek, gpt-oss."""

from __future__ import annotations

import torch

from insight.interchange.name_map import NameMap, rows

TOP = {
    "embedding.weight": rows("model.embed_tokens.weight"),
    "norm.weight": rows("model.norm.weight"),
    "head.weight": rows("lm_head.weight"),
}
ATTENTION = {
    "attention.query_key_value.weight": rows(
        "self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"
    ),
    "attention.query_key_value.bias": rows(
        "self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"
    ),
    "attention.output.weight": rows("self_attn.o_proj.weight"),
    "attention.output.bias": rows("self_attn.o_proj.bias"),
}
FEED_FORWARD = {
    "feed_forward.gate_up.weight": rows("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "feed_forward.down.weight": rows("mlp.down_proj.weight"),
}
PRE_NORM = {
    "attention_norm.weight": rows("input_layernorm.weight"),
    "feed_forward_norm.weight": rows("post_attention_layernorm.weight"),
}

_HEAD_NORMS = {
    "attention.query_norm.weight": rows("self_attn.q_norm.weight"),
    "attention.key_norm.weight": rows("self_attn.k_norm.weight"),
}

LLAMA = NameMap(TOP, ATTENTION | _HEAD_NORMS | FEED_FORWARD | PRE_NORM)
"""Llama, Mistral, Qwen 2 and 3, SmolLM 2 and 3."""

MIXTRAL = NameMap(
    TOP,
    ATTENTION
    | PRE_NORM
    | {
        "feed_forward.router.projection.weight": rows("mlp.gate.weight"),
        "feed_forward.expert_gate_up.weight": rows("mlp.experts.gate_up_proj"),
        "feed_forward.expert_down.weight": rows("mlp.experts.down_proj"),
    },
)

OLMO2 = NameMap(
    TOP,
    ATTENTION
    | FEED_FORWARD
    | {
        "attention.query_norm.norm.weight": rows("self_attn.q_norm.weight"),
        "attention.key_norm.norm.weight": rows("self_attn.k_norm.weight"),
        "attention_norm.weight": rows("post_attention_layernorm.weight"),
        "feed_forward_norm.weight": rows("post_feedforward_layernorm.weight"),
    },
)

GEMMA = NameMap(
    TOP,
    ATTENTION
    | _HEAD_NORMS
    | FEED_FORWARD
    | {
        "attention_norm.weight": rows("input_layernorm.weight"),
        "attention_output_norm.weight": rows("post_attention_layernorm.weight"),
        "feed_forward_norm.weight": rows("pre_feedforward_layernorm.weight"),
        "feed_forward_output_norm.weight": rows("post_feedforward_layernorm.weight"),
    },
)
"""Gemma 2 and 3."""

PHI3 = NameMap(
    TOP,
    PRE_NORM
    | {
        "attention.query_key_value.weight": rows("self_attn.qkv_proj.weight"),
        "attention.output.weight": rows("self_attn.o_proj.weight"),
        "feed_forward.gate_up.weight": rows("mlp.gate_up_proj.weight"),
        "feed_forward.down.weight": rows("mlp.down_proj.weight"),
    },
)

DIFFLLAMA = NameMap(
    TOP,
    ATTENTION
    | FEED_FORWARD
    | PRE_NORM
    | {
        "attention.weight_query_1": rows("self_attn.lambda_q1"),
        "attention.weight_key_1": rows("self_attn.lambda_k1"),
        "attention.weight_query_2": rows("self_attn.lambda_q2"),
        "attention.weight_key_2": rows("self_attn.lambda_k2"),
    },
)


def deepseek_v3_names(
    num_heads: int, head_dim: int, value_dim: int, compressed_queries: bool = True
) -> NameMap:
    """DeepSeek-V3 and Moonlight.

    Args:
        num_heads: Number of heads.
        head_dim: Channels of a key that carry no position.
        value_dim: Channels of a value.
        compressed_queries: Whether queries are made from a short vector (DeepSeek-V3) or from the input
            (Moonlight).
    """

    def keys_before_values(tensor: torch.Tensor) -> torch.Tensor:
        heads = tensor.reshape(num_heads, head_dim + value_dim, *tensor.shape[1:])
        return torch.cat([part.flatten(0, 1) for part in torch.split(heads, [head_dim, value_dim], dim=1)])

    return NameMap(
        TOP,
        PRE_NORM
        | FEED_FORWARD
        | {
            "attention.query_latent.weight": rows("self_attn.q_a_proj.weight"),
            "attention.query_latent_norm.weight": rows("self_attn.q_a_layernorm.weight"),
            "attention.query.weight": rows(
                f"self_attn.{'q_b_proj' if compressed_queries else 'q_proj'}.weight"
            ),
            "attention.latent.weight": rows("self_attn.kv_a_proj_with_mqa.weight"),
            "attention.latent_norm.weight": rows("self_attn.kv_a_layernorm.weight"),
            "attention.key_value.weight": rows("self_attn.kv_b_proj.weight", rearrange=keys_before_values),
            "attention.output.weight": rows("self_attn.o_proj.weight"),
            "feed_forward.router.projection.weight": rows("mlp.gate.weight"),
            "feed_forward.router.choice_bias": rows("mlp.gate.e_score_correction_bias"),
            "feed_forward.expert_gate_up.weight": rows("mlp.experts.gate_up_proj"),
            "feed_forward.expert_down.weight": rows("mlp.experts.down_proj"),
            "feed_forward.shared.gate_up.weight": rows(
                "mlp.shared_experts.gate_proj.weight", "mlp.shared_experts.up_proj.weight"
            ),
            "feed_forward.shared.down.weight": rows("mlp.shared_experts.down_proj.weight"),
        },
    )


def _gate_before_up(tensor: torch.Tensor) -> torch.Tensor:
    """``(experts, 2 channels, ...)``: channels of gate and up in turn to all of gate, then all of up."""
    return torch.cat([tensor[:, 0::2], tensor[:, 1::2]], dim=1)


GPT_OSS = NameMap(
    TOP,
    ATTENTION
    | PRE_NORM
    | {
        "attention.sinks": rows("self_attn.sinks"),
        "feed_forward.router.projection.weight": rows("mlp.router.weight"),
        "feed_forward.router.projection.bias": rows("mlp.router.bias"),
        "feed_forward.expert_gate_up.weight": rows(
            "mlp.experts.gate_up_proj", rearrange=lambda tensor: _gate_before_up(tensor.mT)
        ),
        "feed_forward.expert_gate_up.bias": rows("mlp.experts.gate_up_proj_bias", rearrange=_gate_before_up),
        "feed_forward.expert_down.weight": rows("mlp.experts.down_proj", rearrange=lambda tensor: tensor.mT),
        "feed_forward.expert_down.bias": rows("mlp.experts.down_proj_bias"),
    },
)
"""gpt-oss, whose experts are stored transposed, gate and up channel by channel."""
