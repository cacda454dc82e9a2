"""Order is a permutation, windows cover the text, and both are pure functions of seed and epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data.sampling import WindowOrder, permute, random_integer
from insight.runtime.errors import ConfigError


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(st.integers(1, 700), st.integers(0, 2**70), st.integers(0, 10**9))
def test_every_index_once(size: int, seed: int, epoch: int) -> None:
    images = permute(np.arange(size), size, seed, epoch)
    assert sorted(images.tolist()) == list(range(size))
    # Each image is computed on its own.
    some = np.array([size - 1, 0, size // 2])
    assert permute(some, size, seed, epoch).tolist() == images[some].tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 64, 65, 4095, 4096, 4097])
def test_sizes_around_powers_of_two(size: int) -> None:
    assert sorted(permute(np.arange(size), size, 0, 0).tolist()) == list(range(size))


def test_huge_range_needs_no_memory() -> None:
    size = 10**15 + 7
    images = permute(np.arange(100_000), size, 3, 4)
    assert len(set(images.tolist())) == 100_000
    assert images.min() >= 0
    assert images.max() < size
    # Uniform: the mean of n draws lies within 5 standard errors.
    assert abs(images.mean() / size - 0.5) < 5 / np.sqrt(12 * 100_000)


@pytest.mark.slow
def test_images_look_random() -> None:
    """Over many keys every position takes every value equally often, and neighbours part."""
    size, keys = 11, 4000
    images = np.stack([permute(np.arange(size), size, seed, 0) for seed in range(keys)])
    for column in images.T:
        counts = np.bincount(column, minlength=size)
        chi_square = ((counts - keys / size) ** 2 / (keys / size)).sum()
        assert chi_square < 35  # 10 degrees of freedom: p = 0.0001
    order = permute(np.arange(10_000), 10_000, 0, 0)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
    assert (np.diff(order) == 1).mean() < 0.002


def test_seeds_and_epochs_differ() -> None:
    orders = {tuple(permute(np.arange(100), 100, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_random_integers_are_spread() -> None:
    drawn = [random_integer(10, 0, epoch, 1) for epoch in range(1000)]
    assert set(drawn) == set(range(10))
    assert max(np.bincount(drawn)) < 150


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 400), st.integers(1, 50), st.integers(0, 100), st.integers(0, 5))
def test_windows_of_an_epoch_cover_the_text(num_tokens: int, length: int, seed: int, epoch: int) -> None:
    if num_tokens <= length:
        return
    order = WindowOrder(num_tokens, length, seed)
    starts = order.starts(epoch, np.arange(order.num_windows))
    assert starts.min() >= 0
    assert starts.max() + length + 1 <= num_tokens
    inputs = np.concatenate([np.arange(start, start + length) for start in starts])
    assert len(set(inputs.tolist())) == len(inputs)  # no token twice
    # What is left out is less than two windows: one at each end at most, one window in all by rounding.
    assert num_tokens - 1 - len(inputs) < 2 * length


def test_offsets_of_epochs_differ_and_fill_their_range() -> None:
    order = WindowOrder(1000, 16, 0)
    assert {order.offset(epoch) for epoch in range(300)} == set(range(16))


def test_text_of_one_sequence() -> None:
    order = WindowOrder(9, 8, 0)
    assert order.num_windows == 1
    assert order.starts(5, np.array([0])).tolist() == [0]


def test_wrong_sizes() -> None:
    with pytest.raises(ConfigError) as caught:
        WindowOrder(10, 0, 0)
    assert (caught.value.option, caught.value.value) == ("sequence_length", 0)
    with pytest.raises(ConfigError) as caught:
        WindowOrder(8, 8, 0)
    assert "sequence_length=7" in caught.value.remedy
