"""Weight names of T5 1.0 and 1.1; the first block of each half holds the bias that all its blocks share."""

from __future__ import annotations

from insight.interchange.name_map import EncoderDecoderNames, NameMap, Rows, rows


def _attention(ours: str, theirs: str) -> dict[str, Rows]:
    return {
        f"{ours}.query_key_value.weight": rows(*(f"{theirs}.{part}.weight" for part in "qkv")),
        f"{ours}.output.weight": rows(f"{theirs}.o.weight"),
    }


def _feed_forward(layer: str) -> dict[str, Rows]:
    return {
        "feed_forward.up.weight": rows(f"{layer}.DenseReluDense.wi.weight"),
        "feed_forward.gate_up.weight": rows(
            f"{layer}.DenseReluDense.wi_0.weight", f"{layer}.DenseReluDense.wi_1.weight"
        ),
        "feed_forward.down.weight": rows(f"{layer}.DenseReluDense.wo.weight"),
        "feed_forward_norm.weight": rows(f"{layer}.layer_norm.weight"),
    }


_SELF_ATTENTION = _attention("attention", "layer.0.SelfAttention") | {
    "attention_norm.weight": rows("layer.0.layer_norm.weight")
}
_CROSS_ATTENTION = {
    "cross_attention.query.weight": rows("layer.1.EncDecAttention.q.weight"),
    "cross_attention.key_value.weight": rows(
        "layer.1.EncDecAttention.k.weight", "layer.1.EncDecAttention.v.weight"
    ),
    "cross_attention.output.weight": rows("layer.1.EncDecAttention.o.weight"),
    "cross_attention_norm.weight": rows("layer.1.layer_norm.weight"),
}
_BIAS = {"attention.position.weight": rows("layer.0.SelfAttention.relative_attention_bias.weight")}

T5 = EncoderDecoderNames(
    encoder=NameMap(
        {
            "embedding.weight": rows("shared.weight"),
            "norm.weight": rows("encoder.final_layer_norm.weight"),
        },
        _SELF_ATTENTION | _feed_forward("layer.1"),
        "encoder.block.{layer}.",
        _BIAS,
    ),
    decoder=NameMap(
        {
            "embedding.weight": rows("shared.weight"),
            "norm.weight": rows("decoder.final_layer_norm.weight"),
            "head.weight": rows("lm_head.weight"),
        },
        _SELF_ATTENTION | _CROSS_ATTENTION | _feed_forward("layer.2"),
        "decoder.block.{layer}.",
        _BIAS,
    ),
)
