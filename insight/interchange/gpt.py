"""Weight names of GPT-2, GPT-NeoX, Pythia, BLOOM, Falcon and MPT: a table an architecture."""

from __future__ import annotations

from insight.interchange.name_map import NameMap, rows, transposed, unpacked

GPT2 = NameMap(
    {
        "embedding.weight": rows("transformer.wte.weight"),
        "input_position.weight": rows("transformer.wpe.weight"),
        "norm.weight": rows("transformer.ln_f.weight"),
        "norm.bias": rows("transformer.ln_f.bias"),
    },
    {
        "attention.query_key_value.weight": rows("attn.c_attn.weight", rearrange=transposed),
        "attention.query_key_value.bias": rows("attn.c_attn.bias"),
        "attention.output.weight": rows("attn.c_proj.weight", rearrange=transposed),
        "attention.output.bias": rows("attn.c_proj.bias"),
        "feed_forward.up.weight": rows("mlp.c_fc.weight", rearrange=transposed),
        "feed_forward.up.bias": rows("mlp.c_fc.bias"),
        "feed_forward.down.weight": rows("mlp.c_proj.weight", rearrange=transposed),
        "feed_forward.down.bias": rows("mlp.c_proj.bias"),
        "attention_norm.weight": rows("ln_1.weight"),
        "attention_norm.bias": rows("ln_1.bias"),
        "feed_forward_norm.weight": rows("ln_2.weight"),
        "feed_forward_norm.bias": rows("ln_2.bias"),
    },
    "transformer.h.{layer}.",
)
"""GPT-2, whose matrices are stored transposed."""


def gpt_neox_names(num_heads: int, head_dim: int) -> NameMap:
    """GPT-NeoX and Pythia, which pack queries, keys and values head by head."""
    by_kind = unpacked(num_heads, 1, head_dim)
    return NameMap(
        {
            "embedding.weight": rows("gpt_neox.embed_in.weight"),
            "norm.weight": rows("gpt_neox.final_layer_norm.weight"),
            "norm.bias": rows("gpt_neox.final_layer_norm.bias"),
            "head.weight": rows("embed_out.weight"),
        },
        {
            "attention.query_key_value.weight": rows("attention.query_key_value.weight", rearrange=by_kind),
            "attention.query_key_value.bias": rows("attention.query_key_value.bias", rearrange=by_kind),
            "attention.output.weight": rows("attention.dense.weight"),
            "attention.output.bias": rows("attention.dense.bias"),
            "feed_forward.up.weight": rows("mlp.dense_h_to_4h.weight"),
            "feed_forward.up.bias": rows("mlp.dense_h_to_4h.bias"),
            "feed_forward.down.weight": rows("mlp.dense_4h_to_h.weight"),
            "feed_forward.down.bias": rows("mlp.dense_4h_to_h.bias"),
            "attention_norm.weight": rows("input_layernorm.weight"),
            "attention_norm.bias": rows("input_layernorm.bias"),
            "feed_forward_norm.weight": rows("post_attention_layernorm.weight"),
            "feed_forward_norm.bias": rows("post_attention_layernorm.bias"),
        },
        "gpt_neox.layers.{layer}.",
    )


def bloom_names(num_heads: int, head_dim: int) -> NameMap:
    """BLOOM, which packs queries, keys and values head by head."""
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


def falcon_names(num_heads: int, num_key_value_heads: int, head_dim: int, shared_norm: bool) -> NameMap:
    """Falcon, which packs queries, keys and values by groups that share a key.

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


MPT = NameMap(
    {
        "embedding.weight": rows("transformer.wte.weight"),
        "norm.weight": rows("transformer.norm_f.weight"),
    },
    {
        "attention.query_key_value.weight": rows("attn.Wqkv.weight"),
        "attention.output.weight": rows("attn.out_proj.weight"),
        "feed_forward.up.weight": rows("ffn.up_proj.weight"),
        "feed_forward.down.weight": rows("ffn.down_proj.weight"),
        "attention_norm.weight": rows("norm_1.weight"),
        "feed_forward_norm.weight": rows("norm_2.weight"),
    },
    "transformer.blocks.{layer}.",
)
