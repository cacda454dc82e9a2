"""Llama's and Qwen 3's weight names, and ours for the same numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch

# Ours -> theirs; several of theirs are rows of one of ours, in this order.
_TOP = {
    "embedding.weight": ("model.embed_tokens.weight",),
    "norm.weight": ("model.norm.weight",),
    "head.weight": ("lm_head.weight",),
}
_BLOCK = {
    "attention_norm.weight": ("input_layernorm.weight",),
    "attention.query_key_value.weight": (
        "self_attn.q_proj.weight",
        "self_attn.k_proj.weight",
        "self_attn.v_proj.weight",
    ),
    "attention.query_norm.weight": ("self_attn.q_norm.weight",),
    "attention.key_norm.weight": ("self_attn.k_norm.weight",),
    "attention.output.weight": ("self_attn.o_proj.weight",),
    "feed_forward_norm.weight": ("post_attention_layernorm.weight",),
    "feed_forward.gate_up.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "feed_forward.down.weight": ("mlp.down_proj.weight",),
}


def from_llama(tensors: Mapping[str, torch.Tensor], num_layers: int) -> dict[str, torch.Tensor]:
    """Tensors under our names from tensors (weights or gradients) under Llama's or Qwen 3's.

    Args:
        tensors: By their names; those that the network lacks (a tied head, norms of queries and keys) may
            be missing.
        num_layers: Blocks.
    """
    table: dict[str, tuple[str, ...]] = dict(_TOP)
    for layer in range(num_layers):
        for ours, theirs in _BLOCK.items():
            table[f"blocks.{layer}.{ours}"] = tuple(f"model.layers.{layer}.{name}" for name in theirs)
    return {
        ours: torch.cat([tensors[name] for name in theirs])
        for ours, theirs in table.items()
        if all(name in tensors for name in theirs)
    }
