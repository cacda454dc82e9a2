"""Layouts of a block by their formulas, and what a decoder makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shaken_networks import build_shaken

from insight.models import (
    Block,
    BlockLayout,
    BranchNorm,
    CallContext,
    CausalMask,
    Decoder,
    DecoderConfig,
    LayerNorm,
    ParallelResidual,
    PostNorm,
    PreNorm,
    SandwichNorm,
)
from insight.runtime.component import component_from_dict

LAYOUTS: dict[str, BlockLayout] = {
    "pre": PreNorm(),
    "post": PostNorm(),
    "branch": BranchNorm(),
    "sandwich": SandwichNorm(),
    "parallel": ParallelResidual(),
    "parallel, one norm": ParallelResidual(shared_norm=True),
}


def decoder(layout: BlockLayout) -> Decoder:
    config = DecoderConfig(
        hidden_size=16, num_layers=2, block=layout, norm=LayerNorm(), max_sequence_length=32
    )
    network: Decoder = build_shaken(config, 20, noise=0.2).eval()
    return network


def written_down(name: str, block: Any, x: torch.Tensor, attend: Callable[..., torch.Tensor]) -> torch.Tensor:
    feed, first, second = block.feed_forward, block.attention_norm, block.feed_forward_norm
    if name == "pre":
        x = x + attend(first(x))
        return x + feed(second(x))
    if name == "post":
        x = first(x + attend(x))
        return second(x + feed(x))
    if name == "branch":
        x = x + first(attend(x))
        return x + second(feed(x))
    if name == "sandwich":
        x = x + block.attention_output_norm(attend(first(x)))
        return x + block.feed_forward_output_norm(feed(second(x)))
    return x + attend(first(x)) + feed((second or first)(x))


@pytest.mark.parametrize(("name", "layout"), LAYOUTS.items(), ids=LAYOUTS.keys())
def test_layouts_by_the_formula(name: str, layout: BlockLayout) -> None:
    block: Any = decoder(layout).blocks[0]
    assert isinstance(block, Block)
    tables = block.attention.position.tables(torch.arange(7))
    x = torch.randn(2, 7, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def attend(hidden: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = block.attention(hidden, CallContext(CausalMask(), tables))
        return mixed

    torch.testing.assert_close(
        block(x, CallContext(CausalMask(), tables)), written_down(name, block, x, attend)
    )


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_parameter_learns_and_a_cache_changes_nothing(layout: BlockLayout) -> None:
    network = decoder(layout)
    ids = torch.randint(0, 20, (2, 12), generator=torch.Generator().manual_seed(1))
    whole = network(ids)
    network.logits(whole).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    cache = network.make_cache(2)
    with torch.no_grad():
        parts = [network(part, cache=cache) for part in ids.split([5, 1, 6], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


def test_layouts_differ() -> None:
    ids = torch.arange(8)[None]
    outputs = [decoder(layout)(ids) for layout in LAYOUTS.values()]
    for index, one in enumerate(outputs):
        assert not any(torch.allclose(one, other) for other in outputs[:index])


def test_post_norm_ends_without_a_further_norm() -> None:
    assert not [name for name, _ in decoder(PostNorm()).named_parameters() if name.startswith("norm")]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layouts_survive_json(layout: BlockLayout) -> None:
    config = decoder(layout).config
    assert component_from_dict(config.to_dict()) == config


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_bfloat16_training_keeps_the_stream_wide(layout: BlockLayout) -> None:
    network = decoder(layout).float().train()
    ids = torch.arange(8)[None]
    with torch.autocast("cpu", torch.bfloat16):
        half = network(ids)
    exact = network(ids)
    assert (half.float() - exact).norm() < 0.05 * exact.norm()
