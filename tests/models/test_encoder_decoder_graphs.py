"""Encoder-decoders as graphs: one graph compiled, none more while decoding, exported with any lengths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from insight.models import (
    DecoderConfig,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    GroupedQueryAttention,
    NoPosition,
    PostNorm,
    RelativeBias,
    SinusoidalPosition,
)

VOCABULARY = 50
HEADS = GroupedQueryAttention(4, 2, position=NoPosition())
SMALL: dict[str, Any] = {"hidden_size": 32, "num_layers": 1, "max_sequence_length": 64}
SINES = {"attention": HEADS, "input_position": SinusoidalPosition(), "block": PostNorm()} | SMALL
VARIANTS = {
    "bias": EncoderDecoderConfig(
        EncoderConfig(attention=replace(HEADS, position=RelativeBias(8, 20, bidirectional=True)), **SMALL),
        DecoderConfig(attention=replace(HEADS, position=RelativeBias(8, 20)), tie_embeddings=True, **SMALL),
        HEADS,
        share_embeddings=True,
    ),
    "sines": EncoderDecoderConfig(EncoderConfig(**SINES), DecoderConfig(**SINES), HEADS, logit_bias=True),
}


def build(shape: EncoderDecoderConfig) -> EncoderDecoder:
    torch.manual_seed(0)
    return shape.build(VOCABULARY).double().eval()


def ids(length: int, seed: int) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (3, length), generator=torch.Generator().manual_seed(seed))


def source_mask(length: int) -> torch.Tensor:
    return torch.arange(length) < torch.tensor([length, 5, 2])[:, None]


@pytest.mark.slow
def test_decoding_compiles_nothing_new_as_the_target_grows() -> None:
    network, target = build(VARIANTS["bias"]), ids(16, 2)
    with torch.no_grad():
        whole = network(ids(13, 1), target, source_mask=source_mask(13))
        torch._dynamo.reset()
        counters.clear()
        for block in network.decoder.blocks:
            block.compile(dynamic=True, backend="eager")  # tracing is what could be needed again
        cache = network.make_cache(network.encode(ids(13, 1), source_mask=source_mask(13)))
        steps, graphs = [], []
        for token in target.split(1, dim=1):
            steps.append(network.decode(token, cache=cache))
            graphs.append(counters["stats"]["unique_graphs"])
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)
    assert graphs[2] == graphs[-1] <= 2  # the empty cache, and one with tokens


@pytest.mark.slow
@pytest.mark.parametrize("shape", VARIANTS.values(), ids=VARIANTS.keys())
def test_export_with_dynamic_lengths(shape: EncoderDecoderConfig) -> None:
    network = build(shape)
    source, target = (torch.export.Dim(name, min=2, max=63) for name in ("source", "target"))
    exported = torch.export.export(
        network,
        (ids(13, 1), ids(9, 2)),
        {"source_mask": source_mask(13)},
        dynamic_shapes={"source_ids": {1: source}, "target_ids": {1: target}, "source_mask": {1: source}},
    ).module()
    for source_length, target_length in ((13, 9), (5, 40), (50, 2)):
        batch = (ids(source_length, 3), ids(target_length, 4))
        mask = source_mask(source_length)
        torch.testing.assert_close(exported(*batch, source_mask=mask), network(*batch, source_mask=mask))
