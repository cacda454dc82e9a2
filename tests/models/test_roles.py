"""Roles of parameters, and where fused weights have to be cut."""

from __future__ import annotations

import torch
from torch import nn

from insight.models import Decoder, DecoderConfig, GroupedQueryAttention, muon_splits, parameter_role


def decoder(tied: bool = False) -> Decoder:
    attention = GroupedQueryAttention(num_heads=4, num_key_value_heads=2, qk_norm="rms")
    config = DecoderConfig(hidden_size=32, num_layers=1, attention=attention, tie_embeddings=tied)
    return config.build(50)


def test_each_role_by_name() -> None:
    assert parameter_role(decoder()) == {
        "embedding.weight": "embedding",
        "blocks.0.attention.query_key_value.weight": "hidden",
        "blocks.0.attention.query_norm.weight": "vector",
        "blocks.0.attention.key_norm.weight": "vector",
        "blocks.0.attention.output.weight": "hidden",
        "blocks.0.feed_forward.gate_up.weight": "hidden",
        "blocks.0.feed_forward.down.weight": "hidden",
        "blocks.0.attention_norm.weight": "vector",
        "blocks.0.feed_forward_norm.weight": "vector",
        "norm.weight": "vector",
        "head.weight": "head",
    }
    assert "head" not in parameter_role(decoder(tied=True)).values()


def test_roles_inside_another_module() -> None:
    wrapped = nn.ModuleDict({"network": decoder(), "extra": nn.Linear(3, 3)})
    roles = parameter_role(wrapped)
    assert roles["network.embedding.weight"] == "embedding"
    assert roles["extra.weight"] == "hidden"
    assert roles["extra.bias"] == "vector"


def test_splits_are_the_separate_matrices() -> None:
    network = decoder()
    splits = muon_splits(network)
    assert splits == {
        "blocks.0.attention.query_key_value.weight": (32, 16, 16),
        "blocks.0.feed_forward.gate_up.weight": (network.blocks[0].feed_forward.down.in_features,) * 2,  # type: ignore[union-attr]
    }
    parameters = dict(network.named_parameters())
    roles = parameter_role(network)
    for name, rows in splits.items():
        assert roles[name] == "hidden"
        assert parameters[name].shape[0] == sum(rows)


def test_parts_are_views_of_the_fused_weight() -> None:
    fused = decoder().blocks[0].attention.query_key_value  # type: ignore[union-attr]
    query, key, value = fused.parts()  # type: ignore[operator]
    assert torch.equal(torch.cat([query, key, value]), fused.weight)  # type: ignore[arg-type]
    assert key.data_ptr() == fused.weight[32:].data_ptr()  # type: ignore[index, union-attr]
