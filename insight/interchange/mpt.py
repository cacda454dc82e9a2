"""Weight names of MPT."""

from __future__ import annotations

from insight.interchange.name_map import NameMap, rows

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
