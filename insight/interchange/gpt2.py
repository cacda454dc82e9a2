"""Weight names of GPT-2, whose matrices are stored transposed."""

from __future__ import annotations

from insight.interchange.name_map import NameMap, rows, transposed

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
