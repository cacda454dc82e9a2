"""Weight names of DeepSeek-V3 and Moonlight."""

from __future__ import annotations

import torch

from insight.interchange.llama import FEED_FORWARD, PRE_NORM, TOP
from insight.interchange.name_map import NameMap, rows


def deepseek_v3_names(
    num_heads: int, head_dim: int, value_dim: int, compressed_queries: bool = True
) -> NameMap:
    """The table for heads of this number and size.

    Args:
        num_heads: Heads.
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
