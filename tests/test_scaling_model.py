"""The model of many ranks: its formulas against the algorithms carried out, and its limits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scaling_model
from benchmarks.scaling_model import (
    Network,
    Transformer,
    Work,
    all_reduce,
    ddp_step,
    fsdp_step,
    halving_all_reduce,
    ring_all_reduce,
    ring_reduce_scatter,
)
from benchmarks.scaling_tables import MODELS, NETWORKS, PAGE, RANKS, scaling_tables, write_scaling_page

NETWORK = Network("test", latency=3e-6, bandwidth=1e9)
MODEL = Transformer("test", num_layers=4, hidden_size=512, vocabulary_size=8000)
WORK = Work(num_tokens=2048, sequence_length=512, flops_per_second=1e14)
Step = Callable[[Transformer, Work, int, Network], float]
STEPS = (ddp_step, fsdp_step)
POWERS = [2**power for power in range(11)]


def carried_out_ring(num_ranks: int, size: int) -> tuple[list[np.ndarray], float]:
    """A ring all-reduce of arrays; the arrays at the end, and its time with everybody sending at once."""
    rng = np.random.default_rng(0)
    parts = [np.array_split(rng.integers(0, 9, size).astype(float), num_ranks) for _ in range(num_ranks)]
    expected = np.concatenate([sum(rank[part] for rank in parts) for part in range(num_ranks)])
    seconds = 0.0
    for gathering in (False, True):
        for turn in range(num_ranks - 1):
            sent = {}
            for rank in range(num_ranks):
                part = (rank - turn + gathering) % num_ranks
                sent[(rank + 1) % num_ranks] = (part, parts[rank][part].copy())
            for rank, (part, values) in sent.items():
                parts[rank][part] = values if gathering else parts[rank][part] + values
            longest = max(values.nbytes for _, values in sent.values())
            seconds += NETWORK.latency + longest / NETWORK.bandwidth
    results = [np.concatenate(rank) for rank in parts]
    assert all(np.array_equal(result, expected) for result in results)
    return results, seconds


def carried_out_halving(num_ranks: int, size: int) -> float:
    """Recursive halving, then doubling, of arrays; its time. The number of ranks is a power of two."""
    rng = np.random.default_rng(0)
    values = [rng.integers(0, 9, size).astype(float) for _ in range(num_ranks)]
    expected = sum(values)
    ranges = [(0, size)] * num_ranks
    seconds = 0.0
    distances = [num_ranks >> turn for turn in range(1, num_ranks.bit_length())]
    for distance in distances:
        before = [value.copy() for value in values]
        halves = {}
        for rank in range(num_ranks):
            start, stop = ranges[rank]
            middle = (start + stop) // 2
            halves[rank] = (start, middle) if not rank & distance else (middle, stop)
        for rank in range(num_ranks):
            mine = slice(*halves[rank])
            values[rank][mine] += before[rank ^ distance][mine]
        ranges = [halves[rank] for rank in range(num_ranks)]
        sent = (ranges[0][1] - ranges[0][0]) * 8
        seconds += NETWORK.latency + sent / NETWORK.bandwidth
    for distance in reversed(distances):
        sent = (ranges[0][1] - ranges[0][0]) * 8
        before, old = [value.copy() for value in values], list(ranges)
        for rank in range(num_ranks):
            theirs = old[rank ^ distance]
            values[rank][slice(*theirs)] = before[rank ^ distance][slice(*theirs)]
            ranges[rank] = (min(old[rank][0], theirs[0]), max(old[rank][1], theirs[1]))
        seconds += NETWORK.latency + sent / NETWORK.bandwidth
    assert all(np.array_equal(value, expected) for value in values)
    return seconds


@pytest.mark.parametrize("num_ranks", [2, 3, 4, 7, 16])
def test_the_ring_as_carried_out(num_ranks: int) -> None:
    size = num_ranks * 100
    _, seconds = carried_out_ring(num_ranks, size)
    assert ring_all_reduce(num_ranks, size * 8, NETWORK) == pytest.approx(seconds)


@pytest.mark.parametrize("num_ranks", [2, 4, 8, 32])
def test_halving_as_carried_out(num_ranks: int) -> None:
    size = num_ranks * 64
    assert halving_all_reduce(num_ranks, size * 8, NETWORK) == pytest.approx(
        carried_out_halving(num_ranks, size)
    )


def test_a_wrong_formula_would_be_noticed() -> None:
    _, seconds = carried_out_ring(4, 400)
    forgets_a_part = 2 * 3 * (NETWORK.latency + 400 * 8 / NETWORK.bandwidth)
    assert forgets_a_part != pytest.approx(seconds)


def test_many_bytes_cost_twice_their_time() -> None:
    """Patarasu and Yuan's bound: no all-reduce sends fewer than 2 (p - 1) / p of the bytes."""
    for num_ranks in POWERS[1:]:
        bound = 2 * (num_ranks - 1) / num_ranks * 1e12 / NETWORK.bandwidth
        assert all_reduce(num_ranks, 1e12, NETWORK) == pytest.approx(bound, rel=1e-4)


def test_few_bytes_cost_messages() -> None:
    assert all_reduce(1024, 8, NETWORK) == pytest.approx(20 * NETWORK.latency, rel=1e-2)
    assert ring_all_reduce(1024, 8, NETWORK) == pytest.approx(2046 * NETWORK.latency, rel=1e-2)


def test_ranks_beyond_a_power_of_two() -> None:
    """A few bytes are halved, after the surplus ranks gave theirs away; many go around the ring."""
    assert all_reduce(6, 8, NETWORK) == pytest.approx(6 * NETWORK.latency, rel=1e-2)
    assert all_reduce(6, 1e12, NETWORK) == ring_all_reduce(6, 1e12, NETWORK)


@pytest.mark.parametrize("step", STEPS)
def test_one_rank_says_nothing(step: Step) -> None:
    assert step(MODEL, WORK, 1, NETWORK) == pytest.approx(WORK.seconds(MODEL))


@pytest.mark.parametrize("step", STEPS)
def test_an_infinite_network_costs_nothing(step: Step) -> None:
    endless = Network("endless", 0.0, math.inf)
    for num_ranks in POWERS:
        assert step(MODEL, WORK, num_ranks, endless) == pytest.approx(WORK.seconds(MODEL))


@pytest.mark.parametrize("step", STEPS)
def test_more_ranks_and_less_bandwidth_cost_more(step: Step) -> None:
    bandwidths = [10.0**power for power in range(7, 13)]
    for model in (MODEL, *MODELS):
        for bandwidth in bandwidths:
            network = Network("", NETWORK.latency, bandwidth)
            seconds = [step(model, WORK, num_ranks, network) for num_ranks in POWERS]
            assert seconds == sorted(seconds)
        networks = [Network("", NETWORK.latency, bandwidth) for bandwidth in bandwidths]
        seconds = [step(model, WORK, 64, network) for network in networks]
        assert seconds == sorted(seconds, reverse=True)


def test_ddp_between_its_closed_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast network shows the last bucket only, a slow one all buckets behind what precedes the first."""
    compute = WORK.seconds(MODEL)
    num_buckets = math.ceil(MODEL.num_parameters * 4 / (25 * 2**20))
    assert num_buckets > 1
    size = MODEL.num_parameters * 4 / num_buckets
    fast, slow = Network("", 0.0, 1e13), Network("", 0.0, 1e7)
    assert ddp_step(MODEL, WORK, 8, fast) == pytest.approx(compute + all_reduce(8, size, fast))
    before_first = compute / 3 + compute * 2 / 3 / num_buckets
    sums = num_buckets * all_reduce(8, size, slow)
    assert ddp_step(MODEL, WORK, 8, slow) == pytest.approx(before_first + sums)
    monkeypatch.setattr(scaling_model, "_BUCKET_BYTES", 2**60)  # nothing overlaps
    whole = all_reduce(8, MODEL.num_parameters * 4, slow)
    assert ddp_step(MODEL, WORK, 8, slow) == pytest.approx(compute + whole)


def test_fsdp_between_its_closed_forms() -> None:
    """A slow network shows all that is sent, a fast one what the first and the last block wait for."""
    compute = WORK.seconds(MODEL)
    for bandwidth in (1e6, 1e13):
        network = Network("", 0.0, bandwidth)
        block = ring_reduce_scatter(8, MODEL.block_parameters, network)
        outer = ring_reduce_scatter(8, MODEL.embedding_parameters * 4, network)
        sent = 2 * outer + MODEL.num_layers * (2 * 2 + 4) * block
        seconds = fsdp_step(MODEL, WORK, 8, network)
        assert max(sent, compute) <= seconds <= sent + compute
        if bandwidth == 1e6:
            assert seconds == pytest.approx(sent, rel=1e-3)
        else:
            ends = 2 * outer + 2 * block + 2 * block + 4 * block
            assert seconds == pytest.approx(compute + ends)


def test_sizes_are_those_of_the_papers() -> None:
    sizes = {model.name: model.num_parameters / 1e9 for model in MODELS}
    expected = {"125M": 0.125, "350M": 0.350, "1.3B": 1.3, "7B": 6.74}
    assert sizes == pytest.approx(expected, rel=0.02)


def test_operations_of_a_small_decoder() -> None:
    """Counted by hand: per token 6 times the matrices, and 12 times layers x width x length for attention."""
    model = Transformer("", num_layers=1, hidden_size=2, vocabulary_size=10)
    assert model.step_flops(3, 5) == 3 * (6 * (12 * 4 + 20) + 12 * 1 * 2 * 5)


def test_the_page_holds_these_tables(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "come from a model; nothing in them was measured" in page
    copy = tmp_path / "scaling.md"
    copy.write_text(page, encoding="utf-8")
    write_scaling_page(copy)
    assert copy.read_text(encoding="utf-8") == page, "say: python -m benchmarks.distributed --simulate"
    copy.write_text(page.replace("10 GbE", "11 GbE"), encoding="utf-8")
    write_scaling_page(copy)
    assert copy.read_text(encoding="utf-8") == page


def test_every_network_and_size_is_in_the_tables() -> None:
    text = scaling_tables()
    for name in (*(network.name for network in NETWORKS), *(model.name for model in MODELS)):
        assert name in text
    assert RANKS[0] == 1
    assert RANKS[-1] == 1024
    assert dataclasses.replace(WORK, flops_per_second=5e13).seconds(MODEL) == 2 * WORK.seconds(MODEL)
