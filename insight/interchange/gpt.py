"""Weight names of the GPT family, with plain feed-forwards: one table for each architecture."""

from __future__ import annotations

from insight.interchange.name_map import (
    NameMap,
    Rearrange,
    Rows,
    both,
    norms,
    packed,
    top,
    transposed,
    unpacked,
)

_LM_HEAD = both("head", "lm_head")
_SEPARATE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def _block(
    query_key_value: str | tuple[str, ...],
    output: str,
    up: str,
    down: str,
    rearrange: Rearrange | None = None,
    restore: Rearrange | None = None,
) -> dict[str, Rows]:
    """Attention and a plain feed-forward; only the matrix of queries, keys and values is rearranged."""
    joined = (query_key_value,) if isinstance(query_key_value, str) else query_key_value
    return (
        both("attention.query_key_value", *joined, rearrange=rearrange, restore=restore)
        | both("attention.output", output)
        | both("feed_forward.up", up)
        | both("feed_forward.down", down)
    )


GPT2 = NameMap(
    top("transformer.wte", "transformer.ln_f") | both("input_position", "transformer.wpe"),
    {
        name: Rows(*source.names, rearrange=transposed, restore=transposed)
        for name, source in _block(("attn.c_attn",), "attn.c_proj", "mlp.c_fc", "mlp.c_proj").items()
    }
    | norms("ln_1", "ln_2"),
    "transformer.h.{layer}.",
)
"""GPT-2, whose matrices are stored transposed."""

GPTJ = NameMap(
    top("transformer.wte", "transformer.ln_f") | _LM_HEAD,
    _block(("attn.q_proj", "attn.k_proj", "attn.v_proj"), "attn.out_proj", "mlp.fc_in", "mlp.fc_out")
    | norms("ln_1"),
    "transformer.h.{layer}.",
)

PHI = NameMap(
    top("model.embed_tokens", "model.final_layernorm") | _LM_HEAD,
    _block(_SEPARATE, "self_attn.dense", "mlp.fc1", "mlp.fc2") | norms("input_layernorm"),
)
"""Phi 1, 1.5 and 2."""

STARCODER2 = NameMap(
    top("model.embed_tokens", "model.norm") | _LM_HEAD,
    _block(_SEPARATE, "self_attn.o_proj", "mlp.c_fc", "mlp.c_proj")
    | norms("input_layernorm", "post_attention_layernorm"),
)

NEMOTRON = NameMap(
    top("model.embed_tokens", "model.norm") | _LM_HEAD,
    _block(_SEPARATE, "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
    | norms("input_layernorm", "post_attention_layernorm"),
)

MPT = NameMap(
    top("transformer.wte", "transformer.norm_f"),
    _block(("attn.Wqkv",), "attn.out_proj", "ffn.up_proj", "ffn.down_proj") | norms("norm_1", "norm_2"),
    "transformer.blocks.{layer}.",
)


def _packed(attention: str, num_groups: int, queries_per_group: int, head_dim: int) -> dict[str, Rows]:
    """A block whose queries, keys and values are packed by groups in the module ``attention``."""
    sizes = (num_groups, queries_per_group, head_dim)
    joined, output = (f"{attention}.query_key_value",), f"{attention}.dense"
    return _block(joined, output, "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", unpacked(*sizes), packed(*sizes))


def gpt_neox_names(num_heads: int, head_dim: int) -> NameMap:
    """GPT-NeoX and Pythia, whose queries, keys and values are packed head by head."""
    return NameMap(
        top("gpt_neox.embed_in", "gpt_neox.final_layer_norm") | both("head", "embed_out"),
        _packed("attention", num_heads, 1, head_dim) | norms("input_layernorm", "post_attention_layernorm"),
        "gpt_neox.layers.{layer}.",
    )


def bloom_names(num_heads: int, head_dim: int) -> NameMap:
    """BLOOM, whose queries, keys and values are packed head by head."""
    return NameMap(
        top("transformer.word_embeddings", "transformer.ln_f")
        | both("embedding_norm", "transformer.word_embeddings_layernorm"),
        _packed("self_attention", num_heads, 1, head_dim)
        | norms("input_layernorm", "post_attention_layernorm"),
        "transformer.h.{layer}.",
    )


def falcon_names(
    num_heads: int, num_key_value_heads: int, head_dim: int, shared_norm: bool, parallel: bool = True
) -> NameMap:
    """Falcon, whose queries, keys and values are packed in groups that share a key.

    ``shared_norm`` says whether a parallel block has one norm (7B) or two (40B); without ``parallel``, the
    second comes after attention (RW).
    """
    second = "ln_mlp" if parallel else "post_attention_layernorm"
    return NameMap(
        top("transformer.word_embeddings", "transformer.ln_f") | _LM_HEAD,
        _packed("self_attention", num_key_value_heads, num_heads // num_key_value_heads, head_dim)
        | norms("input_layernorm" if shared_norm or not parallel else "ln_attn", second),
        "transformer.h.{layer}.",
    )
