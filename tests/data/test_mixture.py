"""Mixtures: exact proportions at every moment, each corpus in whole shuffled epochs of its own."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_packing import segments, store_of

from insight.data import Mixture, Packing, SequenceLengthWarmup, TokenStore, Windows
from insight.data.loaders import TrainingBatches
from insight.data.sampling import Corpus, Samples, SamplingConfig
from insight.data.sampling.mixture import MixedSamples, proportional_turns, whole_weights
from insight.runtime.errors import ConfigError


@settings(deadline=None, max_examples=75)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=7))
def test_everybody_has_had_their_share_at_every_moment(weights: list[int]) -> None:
    turns = proportional_turns(weights)
    period = sum(weights)
    assert np.bincount(turns.owner, minlength=len(weights)).tolist() == weights
    counts = np.cumsum(turns.owner[:, None] == np.arange(len(weights)), axis=0)
    # In whole numbers: |count - n * w / period| < 1.
    distance = np.abs(counts * period - np.arange(1, period + 1)[:, None] * np.array(weights))
    assert distance.max() < period
    before = counts - (turns.owner[:, None] == np.arange(len(weights)))
    assert turns.nth.tolist() == before[np.arange(period), turns.owner].tolist()


def test_planted_fault_turns_in_blocks_are_not_fair() -> None:
    weights = np.array([3, 5])
    blocks = np.repeat(np.arange(2), weights)
    counts = np.cumsum(blocks[:, None] == np.arange(2), axis=0)
    assert np.abs(counts * 8 - np.arange(1, 9)[:, None] * weights).max() >= 8


@settings(deadline=None, max_examples=50)
@given(st.lists(st.decimals("0.001", "50", places=3), min_size=1, max_size=5))
def test_decimals_are_taken_as_they_are_written(weights: list[object]) -> None:
    exact = [Fraction(str(weight)) for weight in weights]
    whole = whole_weights([float(str(weight)) for weight in weights])
    assert [Fraction(number, sum(whole)) for number in whole] == [part / sum(exact) for part in exact]


def test_whole_weights_are_the_smallest() -> None:
    assert whole_weights([0.7, 0.3]) == (7, 3)
    assert whole_weights([20, 30]) == (2, 3)
    assert whole_weights([1e-05, 1]) == (1, 100_000)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TokenStore]:
    root = tmp_path_factory.mktemp("stores")
    return {
        name: store_of(root / name, lengths)
        for name, lengths in {"a": [40, 3, 17], "b": [9] * 30, "c": [5, 200]}.items()
        if not (root / name).mkdir()
    }


def mixed(
    stores: dict[str, TokenStore], weights: dict[str, float], sampling: SamplingConfig, seed: int = 0
) -> MixedSamples:
    # Given in another order than that of the weights.
    corpora = [Corpus(name, name, stores[name]) for name in sorted(weights, reverse=True)]
    samples = Mixture(weights, sampling).build(corpora, 8, seed)
    assert isinstance(samples, MixedSamples)
    return samples


def owners_of(samples: MixedSamples, names: np.ndarray) -> list[str]:  # type: ignore[type-arg]
    ends = np.cumsum([part.num_names for part in samples.parts])
    return [samples.names[int(np.searchsorted(ends, name, side="right"))] for name in names.tolist()]


@pytest.mark.parametrize("sampling", [Windows(), Packing()], ids=repr)
def test_shares_of_a_long_run(stores: dict[str, TokenStore], sampling: SamplingConfig) -> None:
    weights = {"c": 0.5, "a": 0.2, "b": 0.3}
    samples = mixed(stores, weights, sampling)
    owners = owners_of(samples, samples.order(0, np.arange(5000)))
    for number in (1, 7, 999, 5000):
        for name, weight in weights.items():
            assert abs(owners[:number].count(name) - weight * number) < 1


@pytest.mark.parametrize("sampling", [Windows(), Packing()], ids=repr)
def test_each_corpus_is_read_in_whole_epochs(stores: dict[str, TokenStore], sampling: SamplingConfig) -> None:
    samples = mixed(stores, {"a": 3, "b": 1}, sampling)
    names = samples.order(0, np.arange(2000))
    for number, part in enumerate(samples.parts):
        base = sum(other.num_names for other in samples.parts[:number])
        own = names[(names >= base) & (names < base + part.num_names)] - base
        epochs = [own[start : start + part.num_samples] for start in range(0, 200, part.num_samples)][:4]
        orders = [epoch.tolist() for epoch in epochs]
        expected = [part.order(index, np.arange(part.num_samples)).tolist() for index in range(len(orders))]
        assert orders == expected
        assert all(len(set(order)) == part.num_samples for order in orders)
        assert len({tuple(order) for order in orders}) == len(orders)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**12), st.integers(1, 50))
def test_positions_far_ahead_cost_nothing_and_agree(start: int, count: int) -> None:
    class Counting(Samples):
        num_samples = 7
        num_names = 7

        def order(self, epoch, positions):  # type: ignore[no-untyped-def]
            assert ((positions >= 0) & (positions < 7)).all()
            return (positions + epoch) % 7

        def rows(self, names):  # type: ignore[no-untyped-def]
            raise AssertionError

    samples = MixedSamples(("a", "b"), (Counting(), Counting()), proportional_turns([2, 3]))
    together = samples.order(0, np.arange(start, start + count))
    alone = [int(samples.order(0, np.array([start + number]))[0]) for number in range(count)]
    assert together.tolist() == alone


def test_rows_come_back_in_order(stores: dict[str, TokenStore]) -> None:
    for sampling in (Windows(), Packing()):
        samples = mixed(stores, {"a": 1, "b": 2, "c": 1}, sampling)
        names = samples.order(0, np.arange(40))
        together = samples.rows(names)
        for row, name in enumerate(names):
            alone = samples.rows(np.array([name]))
            assert together.inputs[row].tolist() == alone.inputs[0].tolist()
            assert together.targets[row].tolist() == alone.targets[0].tolist()
            if together.document_ids is not None and alone.document_ids is not None:
                assert together.document_ids[row].tolist() == alone.document_ids[0].tolist()


def test_packed_mixture_gives_every_token_of_a_corpus_once_an_epoch(stores: dict[str, TokenStore]) -> None:
    samples = mixed(stores, {"a": 1, "b": 1}, Packing())
    part = samples.parts[0]
    batches = TrainingBatches(samples, 2, 0, 1)
    found = []
    for index in range(part.num_samples):  # one row of each a batch
        batch = batches(index)
        batch.document_ids, batch.position_ids = batch.document_ids[:1], batch.position_ids[:1]  # type: ignore[index]
        batch.input_ids, batch.targets = batch.input_ids[:1], batch.targets[:1]
        found += [token for _, targets in segments(batch) for token in targets]
    store = stores["a"]
    assert sorted(found) == sorted(store.tokens(0, store.num_tokens).tolist())


def test_corpora_of_equal_size_have_orders_of_their_own(tmp_path: Path) -> None:
    store = store_of(tmp_path, [400])
    samples = Mixture({"a": 1, "b": 1}).build([Corpus(n, n, store) for n in "ab"], 8, 0)
    assert isinstance(samples, MixedSamples)
    orders = [part.order(0, np.arange(20)).tolist() for part in samples.parts]
    assert orders[0] != orders[1]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Mixture({}), "weights={}"),
        (lambda: Mixture({"a": 0.0}), "weights.a=0.0"),
        (lambda: Mixture({"a": float("nan")}), "weights.a=nan"),
        (lambda: Mixture({"a": float("inf")}), "weights.a=inf"),
        (lambda: Mixture({"a": True}), "weights.a=True"),
        (lambda: Mixture({False: 1.0}), "put the name in quotes"),  # type: ignore[dict-item]
        (lambda: Mixture({"a": 0.123456789, "b": 1}), "repeat after"),
        (lambda: Mixture({"a": 1}, Mixture({"a": 1})), "sampling=Mixture: "),
        (lambda: Mixture({"a": 1}, SequenceLengthWarmup()), "sampling=SequenceLengthWarmup: "),
        (lambda: Mixture({"a": 1, "b": 2}).check(["a", "c"], 8), "weights names a, b, and train_files a, c"),
        (lambda: Mixture({"a": 1}).check([""], 8), "files without a name"),
        (lambda: Windows().check(["a", "b"], 8), "train_files names 2 corpora (a, b)"),
        (lambda: Packing().check(["a", "b"], 8), "sampling=Packing takes one"),
    ],
)
def test_what_cannot_work_is_refused(make: object, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()  # type: ignore[operator]
    assert named in str(caught.value)
    assert caught.value.remedy
