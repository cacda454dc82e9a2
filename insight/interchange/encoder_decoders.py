"""Weight names of encoder-decoders: T5 1.0 and 1.1, Marian."""

from __future__ import annotations

from insight.interchange.name_map import EncoderDecoderNames, NameMap, Rows, both, norms, top


def _t5_block(feed_forward: str) -> dict[str, Rows]:
    dense = f"{feed_forward}.DenseReluDense"
    return (
        both("attention.query_key_value", *(f"layer.0.SelfAttention.{part}" for part in "qkv"))
        | both("attention.output", "layer.0.SelfAttention.o")
        | both("feed_forward.up", f"{dense}.wi")
        | both("feed_forward.gate_up", f"{dense}.wi_0", f"{dense}.wi_1")
        | both("feed_forward.down", f"{dense}.wo")
        | norms("layer.0.layer_norm", f"{feed_forward}.layer_norm")
    )


_T5_CROSS_ATTENTION = (
    both("cross_attention.query", "layer.1.EncDecAttention.q")
    | both("cross_attention.key_value", "layer.1.EncDecAttention.k", "layer.1.EncDecAttention.v")
    | both("cross_attention.output", "layer.1.EncDecAttention.o")
    | both("cross_attention_norm", "layer.1.layer_norm")
)
_T5_BIAS = both("attention.position", "layer.0.SelfAttention.relative_attention_bias")

T5 = EncoderDecoderNames(
    encoder=NameMap(
        top("shared", "encoder.final_layer_norm"), _t5_block("layer.1"), "encoder.block.{layer}.", _T5_BIAS
    ),
    decoder=NameMap(
        top("shared", "decoder.final_layer_norm") | both("head", "lm_head"),
        _t5_block("layer.2") | _T5_CROSS_ATTENTION,
        "decoder.block.{layer}.",
        _T5_BIAS,
    ),
)
"""T5 1.0 and 1.1; the first block of each half holds the relative bias that all its blocks share."""

_MARIAN_BLOCK = (
    both("attention.query_key_value", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    | both("attention.output", "self_attn.out_proj")
    | both("feed_forward.up", "fc1")
    | both("feed_forward.down", "fc2")
    | norms("self_attn_layer_norm", "final_layer_norm")
)
_MARIAN_CROSS = (
    both("cross_attention.query", "encoder_attn.q_proj")
    | both("cross_attention.key_value", "encoder_attn.k_proj", "encoder_attn.v_proj")
    | both("cross_attention.output", "encoder_attn.out_proj")
    | both("cross_attention_norm", "encoder_attn_layer_norm")
)
_MARIAN_EMBEDDING = both("embedding", "model.shared")

MARIAN = EncoderDecoderNames(
    encoder=NameMap(_MARIAN_EMBEDDING, _MARIAN_BLOCK, "model.encoder.layers.{layer}."),
    decoder=NameMap(_MARIAN_EMBEDDING, _MARIAN_BLOCK | _MARIAN_CROSS, "model.decoder.layers.{layer}."),
    top={"logit_bias": Rows("final_logits_bias", rearrange=lambda bias: bias.flatten())},
)
"""Marian's translation models with one vocabulary for both languages (OPUS-MT)."""
