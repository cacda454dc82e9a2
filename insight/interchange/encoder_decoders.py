"""Weight names of encoder-decoders: T5 1.0 and 1.1, Marian."""

from __future__ import annotations

from insight.interchange.name_map import EncoderDecoderNames, NameMap, Rows, both, rows


def _t5_attention(ours: str, theirs: str) -> dict[str, Rows]:
    return {
        f"{ours}.query_key_value.weight": rows(*(f"{theirs}.{part}.weight" for part in "qkv")),
        f"{ours}.output.weight": rows(f"{theirs}.o.weight"),
    }


def _t5_feed_forward(layer: str) -> dict[str, Rows]:
    return {
        "feed_forward.up.weight": rows(f"{layer}.DenseReluDense.wi.weight"),
        "feed_forward.gate_up.weight": rows(
            f"{layer}.DenseReluDense.wi_0.weight", f"{layer}.DenseReluDense.wi_1.weight"
        ),
        "feed_forward.down.weight": rows(f"{layer}.DenseReluDense.wo.weight"),
        "feed_forward_norm.weight": rows(f"{layer}.layer_norm.weight"),
    }


_T5_ATTENTION = _t5_attention("attention", "layer.0.SelfAttention") | {
    "attention_norm.weight": rows("layer.0.layer_norm.weight")
}
_T5_CROSS_ATTENTION = {
    "cross_attention.query.weight": rows("layer.1.EncDecAttention.q.weight"),
    "cross_attention.key_value.weight": rows(
        "layer.1.EncDecAttention.k.weight", "layer.1.EncDecAttention.v.weight"
    ),
    "cross_attention.output.weight": rows("layer.1.EncDecAttention.o.weight"),
    "cross_attention_norm.weight": rows("layer.1.layer_norm.weight"),
}
_T5_BIAS = {"attention.position.weight": rows("layer.0.SelfAttention.relative_attention_bias.weight")}

T5 = EncoderDecoderNames(
    encoder=NameMap(
        {
            "embedding.weight": rows("shared.weight"),
            "norm.weight": rows("encoder.final_layer_norm.weight"),
        },
        _T5_ATTENTION | _t5_feed_forward("layer.1"),
        "encoder.block.{layer}.",
        _T5_BIAS,
    ),
    decoder=NameMap(
        {
            "embedding.weight": rows("shared.weight"),
            "norm.weight": rows("decoder.final_layer_norm.weight"),
            "head.weight": rows("lm_head.weight"),
        },
        _T5_ATTENTION | _T5_CROSS_ATTENTION | _t5_feed_forward("layer.2"),
        "decoder.block.{layer}.",
        _T5_BIAS,
    ),
)
"""T5 1.0 and 1.1; the first block of each half holds the relative bias that all its blocks share."""

_MARIAN_BLOCK = (
    both("attention.query_key_value", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    | both("attention.output", "self_attn.out_proj")
    | both("attention_norm", "self_attn_layer_norm")
    | both("feed_forward.up", "fc1")
    | both("feed_forward.down", "fc2")
    | both("feed_forward_norm", "final_layer_norm")
)
_MARIAN_CROSS = (
    both("cross_attention.query", "encoder_attn.q_proj")
    | both("cross_attention.key_value", "encoder_attn.k_proj", "encoder_attn.v_proj")
    | both("cross_attention.output", "encoder_attn.out_proj")
    | both("cross_attention_norm", "encoder_attn_layer_norm")
)
_MARIAN_EMBEDDING = {"embedding.weight": rows("model.shared.weight")}

MARIAN = EncoderDecoderNames(
    encoder=NameMap(_MARIAN_EMBEDDING, _MARIAN_BLOCK, "model.encoder.layers.{layer}."),
    decoder=NameMap(_MARIAN_EMBEDDING, _MARIAN_BLOCK | _MARIAN_CROSS, "model.decoder.layers.{layer}."),
    top={"logit_bias": rows("final_logits_bias", rearrange=lambda bias: bias.flatten())},
)
"""Marian's translation models with one vocabulary for both languages (OPUS-MT)."""
