"""torch.compile and torch.export take variants whole, with one graph and the same numbers.

Projections and positions are compiled in test_compile_matrix, linear mixers and encoders beside their tests;
here are other blocks, norms and feed-forward layers, and exported graphs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from insight.models import (
    MLP,
    Alibi,
    BranchNorm,
    DecoderConfig,
    DifferentialAttention,
    FullWidthNorm,
    GatedDeltaNet,
    GeGLU,
    GroupedQueryAttention,
    LatentAttention,
    LayerNorm,
    LayerPattern,
    LearnedPosition,
    NoPosition,
    OffsetRMSNorm,
    ParallelResidual,
    RelativeBias,
    Rope,
    SandwichNorm,
)

BASE = GroupedQueryAttention(4, 2)
VARIANTS: dict[str, DecoderConfig] = {
    name: replace(config, hidden_size=32, num_layers=2, max_sequence_length=200)
    for name, config in {
        "plain": DecoderConfig(attention=BASE),
        "window": DecoderConfig(attention=replace(BASE, window=9)),
        "alibi": DecoderConfig(attention=replace(BASE, position=Alibi())),
        "relative bias": DecoderConfig(attention=replace(BASE, position=RelativeBias(8, 30))),
        "learned": DecoderConfig(
            attention=replace(BASE, position=NoPosition(), qkv_bias=True),
            feed_forward=MLP(bias=True),
            norm=LayerNorm(),
            input_position=LearnedPosition(),
        ),
        "gemma": DecoderConfig(
            attention=LayerPattern((replace(BASE, window=9, score_soft_cap=5.0), BASE)),
            feed_forward=GeGLU(),
            norm=OffsetRMSNorm(),
            block=SandwichNorm(),
            embedding_scale=5.0,
        ),
        "olmo": DecoderConfig(attention=replace(BASE, qk_norm=FullWidthNorm()), block=BranchNorm()),
        "neox": DecoderConfig(
            attention=replace(BASE, position=Rope(rotated_share=0.5)), block=ParallelResidual()
        ),
        "sinks and gate": DecoderConfig(attention=replace(BASE, sinks=True, output_gate=True)),
        "differential": DecoderConfig(attention=DifferentialAttention(4, 2)),
        "latent": DecoderConfig(attention=LatentAttention(4, 12, 6, rotary_dim=8, value_dim=8)),
        "delta net": DecoderConfig(attention=GatedDeltaNet(4)),
    }.items()
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["learned", "gemma", "olmo", "neox"])
def test_one_graph_and_the_same_numbers(name: str) -> None:
    torch.manual_seed(0)
    network = VARIANTS[name].build(30).double()
    torch._dynamo.reset()
    counters.clear()
    # Tracing is what variants can break; turning the graph into machine code is the same for all.
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=False)

    def gradients(call: Any, ids: torch.Tensor) -> list[torch.Tensor]:
        network.zero_grad()
        hidden = call(ids)
        hidden.square().mean().backward()
        return [hidden.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]

    for seed in range(2):
        ids = torch.randint(0, 30, (2, 70), generator=torch.Generator().manual_seed(seed))
        for result, expected in zip(gradients(compiled, ids), gradients(network, ids), strict=True):
            assert (result - expected).norm() <= 1e-6 * expected.norm().clamp_min(1e-6)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "alibi",
        "relative bias",
        "learned",
        "olmo",
        "neox",
        "sinks and gate",
        "differential",
        "latent",
    ],
)
def test_export_with_dynamic_length(name: str) -> None:
    torch.manual_seed(0)
    network = VARIANTS[name].build(30).eval()
    length = torch.export.Dim("length", min=2, max=199)
    ids = torch.randint(0, 30, (2, 70), generator=torch.Generator().manual_seed(0))
    exported = torch.export.export(network, (ids,), dynamic_shapes={"input_ids": {1: length}}).module()
    with torch.no_grad():
        for some in (ids, ids[:, :3], torch.cat([ids, ids], dim=1)):
            torch.testing.assert_close(exported(some), network(some), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["window", "delta net"])
def test_what_runs_in_blocks_is_exported_for_a_length(name: str) -> None:
    """The number of blocks of a window, and of chunks of a linear mixer, is part of the graph."""
    torch.manual_seed(0)
    network = VARIANTS[name].build(30).eval()
    ids = torch.randint(0, 30, (2, 70), generator=torch.Generator().manual_seed(0))
    exported = torch.export.export(network, (ids,)).module()
    other = torch.flip(ids, dims=[1])
    with torch.no_grad():
        torch.testing.assert_close(exported(other), network(other), rtol=1e-4, atol=1e-5)
