"""Weight names of BLOOM; queries, keys and values are packed head by head."""

from __future__ import annotations

from insight.interchange.name_map import NameMap, rows, unpacked


def bloom_names(num_heads: int, head_dim: int) -> NameMap:
    """The table for heads of this number and size."""
    by_kind = unpacked(num_heads, 1, head_dim)
    return NameMap(
        {
            "embedding.weight": rows("transformer.word_embeddings.weight"),
            "embedding_norm.weight": rows("transformer.word_embeddings_layernorm.weight"),
            "embedding_norm.bias": rows("transformer.word_embeddings_layernorm.bias"),
            "norm.weight": rows("transformer.ln_f.weight"),
            "norm.bias": rows("transformer.ln_f.bias"),
        },
        {
            "attention.query_key_value.weight": rows(
                "self_attention.query_key_value.weight", rearrange=by_kind
            ),
            "attention.query_key_value.bias": rows("self_attention.query_key_value.bias", rearrange=by_kind),
            "attention.output.weight": rows("self_attention.dense.weight"),
            "attention.output.bias": rows("self_attention.dense.bias"),
            "feed_forward.up.weight": rows("mlp.dense_h_to_4h.weight"),
            "feed_forward.up.bias": rows("mlp.dense_h_to_4h.bias"),
            "feed_forward.down.weight": rows("mlp.dense_4h_to_h.weight"),
            "feed_forward.down.bias": rows("mlp.dense_4h_to_h.bias"),
            "attention_norm.weight": rows("input_layernorm.weight"),
            "attention_norm.bias": rows("input_layernorm.bias"),
            "feed_forward_norm.weight": rows("post_attention_layernorm.weight"),
            "feed_forward_norm.bias": rows("post_attention_layernorm.bias"),
        },
        "transformer.h.{layer}.",
    )
