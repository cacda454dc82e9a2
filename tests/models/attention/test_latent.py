"""Latent attention: absorbed decoding equals expanded training, what the cache holds, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shaken_networks import build_shaken

from insight.models import (
    Alibi,
    Decoder,
    DecoderConfig,
    FullCache,
    LatentAttention,
    RelativeBias,
    Rope,
    muon_splits,
    parameter_role,
)
from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError


def decoder(**options: Any) -> Decoder:
    attention = LatentAttention(
        **({"latent_size": 12, "head_dim": 6, "rotary_dim": 4, "value_dim": 8} | options)  # type: ignore[arg-type]
    )
    config = DecoderConfig(hidden_size=32, num_layers=2, attention=attention)
    network: Decoder = build_shaken(config, 30, noise=0.2).eval()
    return network


def ids(length: int = 20) -> torch.Tensor:
    return torch.randint(0, 30, (2, length), generator=torch.Generator().manual_seed(1))


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "compressed queries": {"query_latent_size": 10},
    "window": {"window": 5},
    "half-split": {"position": Rope()},
    "narrow values": {"value_dim": 3},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("chunks", [[1] * 20, [7, 13], [20]])
def test_absorbed_equals_expanded(options: dict[str, Any], chunks: list[int]) -> None:
    network = decoder(**options)
    cache = network.make_cache(2)
    with torch.no_grad():
        parts = [network(part, cache=cache) for part in ids().split(chunks, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), network(ids()), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("kernel", ["sdpa", "tiled"])
def test_kernels_equal_the_reference_with_gradients(options: dict[str, Any], kernel: str) -> None:
    results = []
    for name in ("reference", kernel):
        network = decoder(kernel=name, **options)
        output = network(ids())
        output.square().mean().backward()
        results.append([output.detach(), *(p.grad for p in network.parameters() if p.grad is not None)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10)


def test_a_token_takes_the_latent_and_one_rotary_key() -> None:
    layer = decoder().make_cache(2, max_length=50).layers[0]
    assert isinstance(layer, FullCache)
    assert layer.keys.shape == (2, 1, 50, 12 + 4)
    assert layer.values.numel() == 0


def test_rows_of_different_lengths() -> None:
    network, lengths = decoder(window=5), torch.tensor([9, 3])
    cache = network.make_cache(2)
    with torch.no_grad():
        network(ids()[:, :9], cache=cache, lengths=lengths)
        hidden = network(ids()[torch.arange(2), lengths].unsqueeze(1), cache=cache)
        for row, length in enumerate(lengths.tolist()):
            alone = network(ids()[row : row + 1, : length + 1])[0, -1:]
            torch.testing.assert_close(hidden[row], alone, rtol=1e-10, atol=1e-11)


def test_roles_splits_and_json() -> None:
    network = decoder(query_latent_size=10)
    roles = parameter_role(network)
    assert roles["blocks.0.attention.key_value.weight"] == "hidden"
    assert roles["blocks.0.attention.latent_norm.weight"] == "vector"
    assert muon_splits(network)["blocks.0.attention.key_value.weight"] == (4 * 6, 4 * 8)
    assert component_from_dict(network.config.to_dict()) == network.config


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"position": Alibi()}, "position=Alibi"),
        ({"position": RelativeBias()}, "position=RelativeBias"),
        ({"rotary_dim": 5}, "head_dim=5"),
        ({"latent_size": 0}, "latent_size=0"),
        ({"query_latent_size": 0}, "query_latent_size=0"),
        ({"value_dim": 11}, "value_dim=11"),
        ({"score_scale": -1.0}, "score_scale=-1"),
        ({"norm_eps": 0.0}, "norm_eps=0"),
        ({"kernel": "flesh"}, "kernel=flesh"),
        ({"window": 0}, "window=0"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        decoder(**options)
