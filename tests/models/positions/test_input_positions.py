"""Positions added to the embedding: the formula, the end of a learned table."""

from __future__ import annotations

import math

import pytest
import torch

from insight.models import (
    Decoder,
    DecoderConfig,
    GroupedQueryAttention,
    InputPosition,
    LearnedPosition,
    NoPosition,
    SinusoidalPosition,
    parameter_role,
)
from insight.runtime.errors import ConfigError


def decoder(positions: InputPosition | None) -> Decoder:
    torch.manual_seed(0)
    attention = GroupedQueryAttention(2, position=NoPosition())
    config = DecoderConfig(
        hidden_size=16, num_layers=1, attention=attention, max_sequence_length=12, input_position=positions
    )
    return config.build(20).double().eval()


def ids(length: int = 12) -> torch.Tensor:
    return torch.randint(0, 20, (2, length), generator=torch.Generator().manual_seed(1))


def test_sines_and_cosines_by_the_formula() -> None:
    table = SinusoidalPosition().build(6, 10).double()(torch.arange(10))
    for position in range(10):
        for pair in range(3):
            angle = position / 10000 ** (2 * pair / 6)
            assert table[position, 2 * pair].item() == pytest.approx(math.sin(angle))
            assert table[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle))


def test_all_sines_may_come_first() -> None:
    in_turn, apart = (SinusoidalPosition(in_turn=each).build(6, 10).double() for each in (True, False))
    positions = torch.arange(8).view(2, 4)
    expected = in_turn(positions)[..., [0, 2, 4, 1, 3, 5]]
    torch.testing.assert_close(apart(positions), expected)


@pytest.mark.parametrize(
    "positions", [LearnedPosition(std=1.0), SinusoidalPosition(), SinusoidalPosition(in_turn=False)]
)
def test_order_matters_and_a_cache_counts_on(positions: InputPosition) -> None:
    network = decoder(positions)
    swapped = ids()[:, [1, 0, *range(2, 12)]]
    assert not torch.allclose(network(ids())[:, 11], network(swapped)[:, 11])
    cache = network.make_cache(2)
    with torch.no_grad():
        parts = [network(part, cache=cache) for part in ids().split([5, 1, 6], dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), network(ids()))


def test_without_positions_the_prefix_has_no_order() -> None:
    swapped = ids()[:, [1, 0, *range(2, 12)]]
    torch.testing.assert_close(decoder(None)(ids())[:, 11], decoder(None)(swapped)[:, 11])


def test_a_learned_table_ends() -> None:
    network = decoder(LearnedPosition())
    with pytest.raises(ConfigError, match="position 12: learned positions end at 11"):
        network(ids(13))
    with pytest.raises(ConfigError, match="position 40"):
        network(ids(2), position_ids=torch.tensor([[0, 40]] * 2))
    cache = network.make_cache(2, max_length=20)
    with torch.no_grad():
        network(ids(), cache=cache)
        with pytest.raises(ConfigError, match="position 12"):
            network(ids(1), cache=cache)


def test_sines_do_not_end() -> None:
    network = decoder(SinusoidalPosition())
    assert network(ids(4 * 12)).isfinite().all()


def test_a_learned_table_is_no_matrix_for_muon() -> None:
    assert parameter_role(decoder(LearnedPosition()))["input_position.weight"] == "vector"


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError) as error:
        SinusoidalPosition(1.0)
    assert (error.value.option, error.value.value) == ("base", 1.0)
    with pytest.raises(ConfigError) as error:
        LearnedPosition(-1.0)
    assert (error.value.option, error.value.value) == ("std", -1.0)
    attention = GroupedQueryAttention(3, head_dim=5, position=NoPosition())
    config = DecoderConfig(hidden_size=15, attention=attention, input_position=SinusoidalPosition())
    with pytest.raises(ConfigError) as error:
        config.build(20)
    assert (error.value.option, error.value.value) == ("hidden_size", 15)
