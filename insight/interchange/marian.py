"""Weight names of Marian's translation models with one vocabulary for both languages (OPUS-MT)."""

from __future__ import annotations

from insight.interchange.name_map import EncoderDecoderNames, NameMap, Rows, rows

_KINDS = ("weight", "bias")


def _map(ours: str, *theirs: str) -> dict[str, Rows]:
    return {f"{ours}.{kind}": rows(*(f"{name}.{kind}" for name in theirs)) for kind in _KINDS}


_BLOCK = (
    _map("attention.query_key_value", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    | _map("attention.output", "self_attn.out_proj")
    | _map("attention_norm", "self_attn_layer_norm")
    | _map("feed_forward.up", "fc1")
    | _map("feed_forward.down", "fc2")
    | _map("feed_forward_norm", "final_layer_norm")
)
_CROSS_ATTENTION = (
    _map("cross_attention.query", "encoder_attn.q_proj")
    | _map("cross_attention.key_value", "encoder_attn.k_proj", "encoder_attn.v_proj")
    | _map("cross_attention.output", "encoder_attn.out_proj")
    | _map("cross_attention_norm", "encoder_attn_layer_norm")
)
_EMBEDDING = {"embedding.weight": rows("model.shared.weight")}

MARIAN = EncoderDecoderNames(
    encoder=NameMap(_EMBEDDING, _BLOCK, "model.encoder.layers.{layer}."),
    decoder=NameMap(_EMBEDDING, _BLOCK | _CROSS_ATTENTION, "model.decoder.layers.{layer}."),
    top={"logit_bias": rows("final_logits_bias", rearrange=lambda bias: bias.flatten())},
)
