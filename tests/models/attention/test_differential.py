"""Differential attention: what a zero weight leaves, kernels, caches, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shaken_networks import build_shaken

from insight.models import CausalMask, Decoder, DecoderConfig, DifferentialAttention, GroupedQueryAttention
from insight.models.norms import rms_norm
from insight.runtime.errors import ConfigError


def decoder(num_key_value_heads: int = 2, **options: Any) -> Decoder:
    attention = DifferentialAttention(4, num_key_value_heads, **options)
    config = DecoderConfig(hidden_size=32, num_layers=2, attention=attention)
    network: Decoder = build_shaken(config, 30, noise=0.2).eval()
    return network


def ids(length: int = 20) -> torch.Tensor:
    return torch.randint(0, 30, (2, length), generator=torch.Generator().manual_seed(1))


def test_without_the_second_attention_it_is_grouped_query_attention() -> None:
    network = decoder(num_key_value_heads=4)
    attention: Any = network.blocks[0].attention
    attention.subtracted_share = lambda: torch.zeros(())
    plain: Any = GroupedQueryAttention(4).build(32, lambda position, *sizes: position.build(*sizes)).double()
    plain.load_state_dict(attention.state_dict(), strict=False)
    query, key, value = (torch.randn(2, 4, 6, 8, dtype=torch.float64) for _ in range(3))
    # Head i of the first half attends as it would alone, to value heads i and i + 2 side by side.
    alone = [
        plain.mix(query, key, torch.cat([half, half], 1), CausalMask()) for half in value.chunk(2, dim=1)
    ]
    expected = torch.cat(alone, dim=-1)[:, :2]
    expected = (1 - attention.first_weight) * rms_norm(expected, None, 1e-5)
    torch.testing.assert_close(attention.mix(query, key, value, CausalMask()), expected)


def test_the_first_weight_grows_with_depth() -> None:
    weights = [block.attention.first_weight for block in decoder().blocks]  # type: ignore[union-attr]
    assert weights == pytest.approx([0.2, 0.8 - 0.6 * 2.718281828459045**-0.3])


@pytest.mark.parametrize("num_key_value_heads", [1, 2, 4])
@pytest.mark.parametrize("kernel", ["sdpa", "tiled"])
def test_kernels_equal_the_reference_with_gradients(num_key_value_heads: int, kernel: str) -> None:
    results = []
    for name in ("reference", kernel):
        network = decoder(num_key_value_heads, kernel=name)
        output = network(ids())
        output.square().mean().backward()
        results.append([output.detach(), *(p.grad for p in network.parameters() if p.grad is not None)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("chunks", [[1] * 20, [7, 13]])
def test_cached_chunks_equal_one_pass(window: int | None, chunks: list[int]) -> None:
    network = decoder(window=window)
    cache = network.make_cache(2)
    with torch.no_grad():
        parts = [network(part, cache=cache) for part in ids().split(chunks, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), network(ids()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: DifferentialAttention(3), "num_heads=3"),
        (lambda: DifferentialAttention(6, 3), "num_key_value_heads=3"),
        (lambda: DifferentialAttention(4, weight_std=-1.0), "weight_std=-1"),
        (lambda: DifferentialAttention(4, norm_eps=0.0), "norm_eps=0"),
    ],
)
def test_mistakes_are_named(build: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        build()
