"""Weight names of Falcon; queries, keys and values are packed by groups that share a key."""

from __future__ import annotations

from insight.interchange.name_map import NameMap, rows, unpacked


def falcon_names(num_heads: int, num_key_value_heads: int, head_dim: int, shared_norm: bool) -> NameMap:
    """The table for heads of these numbers and size.

    Args:
        num_heads: Query heads.
        num_key_value_heads: Key and value heads.
        head_dim: Channels of a head.
        shared_norm: Whether a block has one norm (7B) or two (40B).
    """
    by_kind = unpacked(num_key_value_heads, num_heads // num_key_value_heads, head_dim)
    own_norms = {
        "attention_norm": "input_layernorm" if shared_norm else "ln_attn",
        "feed_forward_norm": "ln_mlp",
    }
    return NameMap(
        {
            "embedding.weight": rows("transformer.word_embeddings.weight"),
            "norm.weight": rows("transformer.ln_f.weight"),
            "norm.bias": rows("transformer.ln_f.bias"),
            "head.weight": rows("lm_head.weight"),
        },
        {
            "attention.query_key_value.weight": rows(
                "self_attention.query_key_value.weight", rearrange=by_kind
            ),
            "attention.output.weight": rows("self_attention.dense.weight"),
            "feed_forward.up.weight": rows("mlp.dense_h_to_4h.weight"),
            "feed_forward.down.weight": rows("mlp.dense_4h_to_h.weight"),
        }
        | {
            f"{ours}.{kind}": rows(f"{theirs}.{kind}")
            for ours, theirs in own_norms.items()
            for kind in ("weight", "bias")
        },
        "transformer.h.{layer}.",
    )
