"""Weight names of the GPT family, with plain feed-forwards: one table for each architecture."""

from __future__ import annotations

from insight.interchange.name_map import NameMap, Rearrange, Rows, both, transposed, unpacked

_LM_HEAD = both("head", "lm_head")
_WIDE_AND_BACK = both("feed_forward.up", "mlp.dense_h_to_4h") | both("feed_forward.down", "mlp.dense_4h_to_h")
_SEPARATE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")

GPT2 = NameMap(
    both("embedding", "transformer.wte")
    | both("input_position", "transformer.wpe")
    | both("norm", "transformer.ln_f"),
    both("attention.query_key_value", "attn.c_attn", rearrange=transposed)
    | both("attention.output", "attn.c_proj", rearrange=transposed)
    | both("feed_forward.up", "mlp.c_fc", rearrange=transposed)
    | both("feed_forward.down", "mlp.c_proj", rearrange=transposed)
    | both("attention_norm", "ln_1")
    | both("feed_forward_norm", "ln_2"),
    "transformer.h.{layer}.",
)
"""GPT-2, whose matrices are stored transposed."""

GPTJ = NameMap(
    both("embedding", "transformer.wte") | both("norm", "transformer.ln_f") | _LM_HEAD,
    both("attention.query_key_value", "attn.q_proj", "attn.k_proj", "attn.v_proj")
    | both("attention.output", "attn.out_proj")
    | both("feed_forward.up", "mlp.fc_in")
    | both("feed_forward.down", "mlp.fc_out")
    | both("attention_norm", "ln_1"),
    "transformer.h.{layer}.",
)

PHI = NameMap(
    both("embedding", "model.embed_tokens") | both("norm", "model.final_layernorm") | _LM_HEAD,
    both("attention.query_key_value", *_SEPARATE)
    | both("attention.output", "self_attn.dense")
    | both("feed_forward.up", "mlp.fc1")
    | both("feed_forward.down", "mlp.fc2")
    | both("attention_norm", "input_layernorm"),
)
"""Phi 1, 1.5 and 2."""

STARCODER2 = NameMap(
    both("embedding", "model.embed_tokens") | both("norm", "model.norm") | _LM_HEAD,
    both("attention.query_key_value", *_SEPARATE)
    | both("attention.output", "self_attn.o_proj")
    | both("feed_forward.up", "mlp.c_fc")
    | both("feed_forward.down", "mlp.c_proj")
    | both("attention_norm", "input_layernorm")
    | both("feed_forward_norm", "post_attention_layernorm"),
)

NEMOTRON = NameMap(
    both("embedding", "model.embed_tokens") | both("norm", "model.norm") | _LM_HEAD,
    both("attention.query_key_value", *_SEPARATE)
    | both("attention.output", "self_attn.o_proj")
    | both("feed_forward.up", "mlp.up_proj")
    | both("feed_forward.down", "mlp.down_proj")
    | both("attention_norm", "input_layernorm")
    | both("feed_forward_norm", "post_attention_layernorm"),
)

MPT = NameMap(
    both("embedding", "transformer.wte") | both("norm", "transformer.norm_f"),
    both("attention.query_key_value", "attn.Wqkv")
    | both("attention.output", "attn.out_proj")
    | both("feed_forward.up", "ffn.up_proj")
    | both("feed_forward.down", "ffn.down_proj")
    | both("attention_norm", "norm_1")
    | both("feed_forward_norm", "norm_2"),
    "transformer.blocks.{layer}.",
)


def gpt_neox_names(num_heads: int, head_dim: int) -> NameMap:
    """GPT-NeoX and Pythia, whose queries, keys and values are packed head by head."""
    return NameMap(
        both("embedding", "gpt_neox.embed_in")
        | both("norm", "gpt_neox.final_layer_norm")
        | both("head", "embed_out"),
        both(
            "attention.query_key_value",
            "attention.query_key_value",
            rearrange=unpacked(num_heads, 1, head_dim),
        )
        | both("attention.output", "attention.dense")
        | _WIDE_AND_BACK
        | both("attention_norm", "input_layernorm")
        | both("feed_forward_norm", "post_attention_layernorm"),
        "gpt_neox.layers.{layer}.",
    )


def bloom_names(num_heads: int, head_dim: int) -> NameMap:
    """BLOOM, whose queries, keys and values are packed head by head."""
    return NameMap(
        both("embedding", "transformer.word_embeddings")
        | both("embedding_norm", "transformer.word_embeddings_layernorm")
        | both("norm", "transformer.ln_f"),
        _packed_attention("self_attention", unpacked(num_heads, 1, head_dim))
        | _WIDE_AND_BACK
        | both("attention_norm", "input_layernorm")
        | both("feed_forward_norm", "post_attention_layernorm"),
        "transformer.h.{layer}.",
    )


def falcon_names(num_heads: int, num_key_value_heads: int, head_dim: int, shared_norm: bool) -> NameMap:
    """Falcon, whose queries, keys and values are packed in groups that share a key.

    ``shared_norm`` says whether a block has one norm (7B) or two (40B).
    """
    by_kind = unpacked(num_key_value_heads, num_heads // num_key_value_heads, head_dim)
    return NameMap(
        both("embedding", "transformer.word_embeddings") | both("norm", "transformer.ln_f") | _LM_HEAD,
        _packed_attention("self_attention", by_kind)
        | _WIDE_AND_BACK
        | both("attention_norm", "input_layernorm" if shared_norm else "ln_attn")
        | both("feed_forward_norm", "ln_mlp"),
        "transformer.h.{layer}.",
    )


def _packed_attention(theirs: str, by_kind: Rearrange) -> dict[str, Rows]:
    packed = both("attention.query_key_value", f"{theirs}.query_key_value", rearrange=by_kind)
    return packed | both("attention.output", f"{theirs}.dense")
