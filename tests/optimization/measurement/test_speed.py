"""Turns are fair, warm-up does not count, and what is slow is measured as slow."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
import torch

from insight.models import Decoder, DecoderConfig, DynamicNTKScaling, GroupedQueryAttention, Rope
from insight.optimization.measurement import measure_speed
from insight.optimization.measurement.speed import turns
from insight.runtime.errors import ConfigError

CONFIG = DecoderConfig(
    hidden_size=16,
    num_layers=1,
    attention=GroupedQueryAttention(num_heads=2, num_key_value_heads=1),
    max_sequence_length=32,
)
SHORT = {"prompt_length": 6, "num_new_tokens": 3}


@pytest.fixture
def network() -> Decoder:
    return CONFIG.build(20)


def positions(order: Callable[[Sequence[str], int], list[str]], names: str) -> Counter[tuple[str, int]]:
    """How often each name takes each place in as many rounds as make a whole cycle."""
    rounds = [order(names, index) for index in range(2 * len(names))]
    return Counter((name, place) for one in rounds for place, name in enumerate(one))


@pytest.mark.parametrize("names", ["A", "AB", "ABC", "ABCD", "ABCDEFGHI"])
def test_everyone_takes_every_place_equally_often(names: str) -> None:
    assert set(positions(turns, names).values()) == {2}


def test_a_fixed_order_would_be_noticed() -> None:
    """The twin: always the same order gives everyone one place."""
    assert set(positions(lambda names, _: list(names), "ABC").values()) == {6}


def test_nobody_always_comes_after_the_same_other() -> None:
    followed = {pair for index in range(6) for pair in itertools.pairwise(turns("ABC", index))}
    assert len(followed) == 6


def test_two_models_go_back_and_forth() -> None:
    assert ["".join(turns("AB", index)) for index in range(5)] == ["AB", "BA", "BA", "AB", "AB"]


def test_networks_are_measured_in_turns(network: Decoder) -> None:
    """The order in which prompts are read, as the networks themselves see it."""
    networks = {name: CONFIG.build(20) for name in "ABC"}
    seen: list[str] = []
    for name, built in networks.items():
        built.register_forward_pre_hook(
            lambda _, arguments, name=name: seen.append(name) if arguments[0].shape[1] == 6 else None
        )
    speeds = measure_speed(networks, batch_sizes=(1,), **SHORT, seconds=0)
    num_rounds = speeds["A"][0].num_rounds
    assert num_rounds % 2 == 0
    assert "".join(seen[:6]) == "AABBCC"  # warm-up, not counted
    assert seen[6:] == [name for index in range(num_rounds) for name in turns("ABC", index)]


@pytest.mark.slow
def test_what_is_slow_is_slow(network: Decoder) -> None:
    slow = CONFIG.build(20)
    slow.register_forward_pre_hook(lambda *_: time.sleep(0.02))
    speeds = measure_speed({"fast": network, "slow": slow}, batch_sizes=(1, 2), **SHORT, seconds=0)
    for batch_size, speed in zip((1, 2), speeds["slow"], strict=True):
        assert speed.batch_size == batch_size
        assert 0.02 <= speed.prefill_seconds_p50 <= speed.prefill_seconds_p95
        assert 0.02 <= speed.decode_seconds_p50 <= speed.decode_seconds_p95
        assert speed.tokens_per_second <= batch_size / 0.02
    assert speeds["fast"][0].decode_seconds_p50 < 0.02


def test_warm_up_does_not_count(network: Decoder) -> None:
    """Two rounds of four calls are slow, as compiling would be."""
    calls = itertools.count()
    network.register_forward_pre_hook(lambda *_: time.sleep(0.1) if next(calls) < 8 else None)
    speed = measure_speed({"A": network}, batch_sizes=(1,), **SHORT, seconds=0)["A"][0]
    assert speed.prefill_seconds_p95 < 0.1
    assert speed.decode_seconds_p95 < 0.1


def test_seconds_are_spent_on_measuring(network: Decoder) -> None:
    started = time.perf_counter()
    speeds = measure_speed({"A": network}, batch_sizes=(1, 2), **SHORT, seconds=0.4)["A"]
    assert time.perf_counter() - started > 0.4
    assert all(speed.num_rounds > 4 for speed in speeds)


def test_the_network_is_left_as_it_was(network: Decoder) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    state = torch.random.get_rng_state()
    measure_speed({"A": network}, batch_sizes=(1,), **SHORT, seconds=0)
    assert network.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_sizes": ()}, "batch_sizes"),
        ({"batch_sizes": (1, 0)}, "batch_sizes"),
        ({"prompt_length": 0}, "prompt_length=0"),
        ({"num_new_tokens": 0}, "num_new_tokens=0"),
        ({"seconds": -1.0}, "seconds=-1"),
        ({"seconds": float("nan")}, "seconds=nan"),
        ({"prompt_length": 30}, "exceed the context of A"),
    ],
)
def test_wrong_options(network: Decoder, options: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        measure_speed({"A": network}, **{**SHORT, "seconds": 0.0, **options})


def test_a_network_whose_cached_keys_would_go_stale_reads_its_text_anew() -> None:
    position = Rope(scaling=DynamicNTKScaling(factor=4.0, original_length=8))
    config = dataclasses.replace(CONFIG, attention=GroupedQueryAttention(num_heads=2, position=position))
    network = config.build(20)
    lengths: list[int] = []
    network.register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[0].shape[1]))
    (speed,) = measure_speed({"A": network}, batch_sizes=(1,), **SHORT, seconds=0)["A"]
    assert lengths[:4] == [6, 7, 8, 9]
    assert speed.tokens_per_second > 0
    lengths.clear()
    measure_speed({"A": network}, batch_sizes=(1,), prompt_length=3, num_new_tokens=3, seconds=0)
    assert lengths[:4] == [3, 1, 1, 1]  # as long as keys stay right, they are kept


def test_no_network_at_all() -> None:
    with pytest.raises(ConfigError, match="no network"):
        measure_speed({}, seconds=1)
