"""Token-budget batches: within the budget, every sample once an epoch, as many batches on every rank."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data.sampling import TokenBudgetOrder
from insight.runtime.errors import ConfigError

LENGTHS = st.one_of(
    st.lists(st.integers(1, 30), min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=60),
)


def order_of(lengths: object, extra: int, seed: int, pool: int) -> TokenBudgetOrder:
    array = np.array(lengths, dtype=np.int64)
    largest = int(array.reshape(len(array), -1).sum(axis=1).max())
    return TokenBudgetOrder(array, largest + extra, seed, pool)


@settings(deadline=None, max_examples=75)
@given(LENGTHS, st.integers(0, 100), st.integers(0, 9), st.integers(1, 70), st.integers(0, 3))
def test_an_epoch_has_every_sample_once_within_the_budget(
    lengths: list[object], extra: int, seed: int, pool: int, epoch: int
) -> None:
    order = order_of(lengths, extra, seed, pool)
    batches = order.epoch(epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * int(order.lengths[batch].max(axis=0).sum())
        assert padded <= order.max_tokens
    assert 0 <= order.padding(epoch) < 1


@settings(deadline=None, max_examples=50)
@given(LENGTHS, st.integers(0, 100), st.integers(1, 70), st.integers(1, 4))
def test_batches_by_index_are_those_of_one_epoch_after_the_other(
    lengths: list[object], extra: int, pool: int, num_epochs: int
) -> None:
    order = order_of(lengths, extra, 0, pool)
    expected = [batch.tolist() for epoch in range(num_epochs) for batch in order.epoch(epoch)]
    fresh = order_of(lengths, extra, 0, pool)
    found = [fresh.batch(index).tolist() for index in range(len(expected))]
    assert found == expected
    # No batch crosses from one epoch into the next.
    ends = set(itertools.accumulate(map(len, found)))
    assert {epoch * len(lengths) for epoch in range(1, num_epochs + 1)} <= ends


@settings(deadline=None, max_examples=30)
@given(LENGTHS, st.integers(0, 60), st.integers(1, 70), st.integers(0, 40))
def test_a_position_is_enough_to_go_on(lengths: list[object], extra: int, pool: int, num_before: int) -> None:
    order = order_of(lengths, extra, 0, pool)
    whole = [order.batch(index).tolist() for index in range(num_before + 5)]
    position = sum(len(batch) for batch in whole[:num_before])
    resumed = order_of(lengths, extra, 0, pool)
    first = resumed.index_after(position)
    assert [resumed.batch(index).tolist() for index in range(first, first + 5)] == whole[num_before:]


def test_planted_fault_a_position_that_is_off_by_one_is_refused() -> None:
    order = order_of([3] * 40, 20, 0, 16)
    for epoch in (0, 3):
        first = order.epoch(epoch)[0].size
        assert first > 1
        before = sum(len(order.epoch(number)) for number in range(epoch))
        assert order.index_after(epoch * 40 + first) == before + 1
        with pytest.raises(ConfigError) as error:
            order.index_after(epoch * 40 + first - 1)
        assert (error.value.option, error.value.value) == ("num_samples_consumed", epoch * 40 + first - 1)


@settings(deadline=None, max_examples=30)
@given(LENGTHS, st.integers(0, 100))
def test_batches_for_measuring_hold_every_sample_once(lengths: list[object], extra: int) -> None:
    order = order_of(lengths, extra, 0, len(lengths))  # one pool, so an epoch is cut alike
    batches = order.by_length()
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(len(batch) * order.lengths[batch].max(axis=0).sum() <= order.max_tokens for batch in batches)
    assert len(batches) == len(order.epoch(0))


def test_sorting_in_pools_saves_padding_and_partners_change() -> None:
    rng = np.random.default_rng(0)
    source = np.clip(rng.lognormal(3, 0.6, 5000).astype(np.int64), 1, 200)
    target = np.clip((source * rng.uniform(0.8, 1.3, 5000)).astype(np.int64), 1, 250)
    lengths = np.stack([source, target], axis=1)
    sorted_order, unsorted = (TokenBudgetOrder(lengths, 4096, 0, pool) for pool in (2048, 1))
    assert sorted_order.padding(0) < 0.15
    mean = 5000 // len(sorted_order.epoch(0))
    shuffled = [lengths[first : first + mean].max(axis=0).sum() * mean for first in range(0, 5000, mean)]
    assert 1 - lengths.sum() / sum(shuffled) > 3 * sorted_order.padding(0)
    assert len(unsorted.epoch(0)) == 5000, "a pool of one sample is a batch of one"
    partners = [
        {frozenset(batch.tolist()) for batch in sorted_order.epoch(epoch) if len(batch) > 1}
        for epoch in (0, 1)
    ]
    assert len(partners[0] & partners[1]) < 5
    # Long and short batches come mixed, not the longest first.
    sizes = [len(batch) for batch in sorted_order.epoch(0)]
    assert abs(np.corrcoef(sizes, np.arange(len(sizes)))[0, 1]) < 0.2


def test_both_sides_of_neighbours_are_alike_and_not_only_their_sum() -> None:
    rng = np.random.default_rng(0)
    source = rng.integers(10, 50, 8000)
    lengths = np.stack([source, np.clip(source + rng.integers(-8, 9, 8000), 1, None)], axis=1)
    order = TokenBudgetOrder(lengths, 4096, 0)
    totals = TokenBudgetOrder(lengths.sum(axis=1), 4096, 0).epoch(0)
    padded = sum(len(batch) * int(lengths[batch].max(axis=0).sum()) for batch in totals)
    assert 1 - lengths.sum() / padded > 2 * order.padding(0)


@pytest.mark.parametrize(
    ("lengths", "options", "named"),
    [
        ([], {}, "lengths is"),
        ([[[1]]], {}, "shape (1, 1, 1)"),
        ([0.5], {}, "float64"),
        ([3, 0], {}, "lengths[1]"),
        ([3, 9], {"max_tokens": 8}, "max_tokens=8: sample 1 alone has 9"),
        ([3], {"pool_size": 0}, "pool_size=0"),
    ],
)
def test_wrong_values(lengths: list[object], options: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TokenBudgetOrder(np.array(lengths), **({"max_tokens": 100, "seed": 0} | options))
    assert named in str(caught.value)
