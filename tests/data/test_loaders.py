"""Batches are the right windows, the same on any number of ranks, and evaluation counts every byte once."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data import IGNORED_TARGET, BaseTokenizer, BPETokenizerConfig, LanguageModelBatch, TokenStore
from insight.data.encoding.documents import encode_documents
from insight.data.loaders import BatchLoader, EvaluationBatches, TrainingBatches
from insight.data.sampling import (
    Corpus,
    EvaluationWindows,
    Mixture,
    Packing,
    SamplingConfig,
    SequenceLengthWarmup,
    Windows,
)
from insight.data.store import StoreWriter
from insight.data.tokenizers import ByteTokenizer


def store_of(
    folder: Path, documents: list[str], tokenizer: BaseTokenizer, shard_tokens: int = 50
) -> TokenStore:
    writer = StoreWriter(folder, tokenizer, shard_tokens)
    encode_documents(documents, writer)
    writer.close({})
    return TokenStore(folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    documents = [f"document number {number} " * (1 + number % 3) for number in range(30)]
    return store_of(tmp_path_factory.mktemp("store"), documents, ByteTokenizer())


WINDOWS = Windows()
SAMPLINGS = [
    Windows(),
    Windows(random_offset=False),
    Packing(),
    Mixture({"a": 2, "b": 1}),
    Mixture({"a": 0.3, "b": 0.7}, Packing()),
    SequenceLengthWarmup(4, 5),
    SequenceLengthWarmup(2, 9, keep_tokens=False, sampling=Mixture({"a": 1, "b": 1}, Packing())),
]


def training(
    store: TokenStore,
    batch: int = 6,
    rank: int = 0,
    world: int = 1,
    seed: int = 0,
    sampling: SamplingConfig = WINDOWS,
    length: int = 7,
) -> TrainingBatches:
    """Where the sampling mixes corpora, both are the same text."""
    inner = sampling.sampling if isinstance(sampling, SequenceLengthWarmup) else sampling
    names = list(inner.weights) if isinstance(inner, Mixture) else [""]
    samples = sampling.build([Corpus(name, name, store) for name in names], length, seed)
    return TrainingBatches(samples, batch, rank, world, sampling=sampling)


@pytest.mark.parametrize("sampling", [way for way in SAMPLINGS if not way.counts_batches], ids=repr)
@pytest.mark.parametrize("num_batches_a_step", [1, 2, 3, 6])
def test_the_samples_of_a_step_do_not_depend_on_its_number_of_batches(
    store: TokenStore, sampling: SamplingConfig, num_batches_a_step: int
) -> None:
    whole = replace(training(store, 12, sampling=sampling), samples_per_step=12)
    parts = replace(training(store, 12 // num_batches_a_step, sampling=sampling), samples_per_step=12)
    assert parts.num_batches == whole.num_batches * num_batches_a_step
    for step in range(3 * whole.num_batches):
        batches = (parts(step * num_batches_a_step + number) for number in range(num_batches_a_step))
        assert [row for batch in batches for row in batch.input_ids.tolist()] == whole(
            step
        ).input_ids.tolist()


def test_epochs_that_end_inside_a_step_would_be_noticed(store: TokenStore) -> None:
    whole, halves = training(store, 12), training(store, 6)
    steps = [whole(step).input_ids.tolist() for step in range(3 * whole.num_batches)]
    pairs = [
        [*halves(2 * n).input_ids.tolist(), *halves(2 * n + 1).input_ids.tolist()] for n in range(len(steps))
    ]
    assert halves.num_batches % 2, "an odd number of halves is what goes wrong"
    assert steps != pairs


def equal(a: LanguageModelBatch, b: LanguageModelBatch) -> bool:
    return {name: None if value is None else value.tolist() for name, value in tensors(a).items()} == {
        name: None if value is None else value.tolist() for name, value in tensors(b).items()
    }


def tensors(batch: LanguageModelBatch) -> dict[str, torch.Tensor | None]:
    return {name: value for name, value in vars(batch).items() if name != "num_samples"}


def test_training_batch_is_windows_and_the_tokens_after_them(store: TokenStore) -> None:
    batches = training(store)
    stream = store.tokens(0, store.num_tokens).tolist()
    for index in (0, 1, batches.num_batches, 3 * batches.num_batches + 2):
        batch = batches(index)
        assert batch.input_ids.dtype == batch.targets.dtype == torch.int64
        assert batch.input_ids.shape == batch.targets.shape == (6, 7)
        assert batch.input_ids.is_contiguous()
        assert batch.targets.is_contiguous()
        for inputs, targets in zip(batch.input_ids.tolist(), batch.targets.tolist(), strict=True):
            assert inputs[1:] == targets[:-1]
            window = [*inputs, targets[-1]]
            assert any(stream[start : start + 8] == window for start in range(len(stream)))


@pytest.mark.parametrize("at_once", [1, 13, 4096])
def test_epoch_uses_no_window_twice(store: TokenStore, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr("insight.data.loaders._SAMPLES_AT_ONCE", at_once)
    batches = training(store)
    for epoch in range(3):
        first = epoch * batches.num_batches
        order = batches.samples.order(epoch, torch.arange(batches.num_batches * 6).numpy())
        assert len(set(order.tolist())) == len(order)
        rows = [
            row for index in range(batches.num_batches) for row in batches(first + index).input_ids.tolist()
        ]
        expected = [store.tokens(start, start + 7).tolist() for start in order.tolist()]
        assert rows == expected


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=repr)
@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_ranks_together_make_the_global_batch(
    store: TokenStore, world: int, sampling: SamplingConfig
) -> None:
    whole = training(store, sampling=sampling, length=8)
    ranks = [training(store, rank=rank, world=world, sampling=sampling, length=8) for rank in range(world)]
    for index in [*range(0, 3 * whole.num_batches, 5), 4]:
        expected, parts = whole(index), [rank(index) for rank in ranks]
        cut = len(expected.input_ids) // 6  # rows that a warm-up cuts one sample into
        for name, value in tensors(expected).items():
            of_ranks = [tensors(part)[name] for part in parts]
            if value is None:
                assert of_ranks == [None] * world
                continue
            together = torch.stack([part.reshape(6 // world, cut, -1) for part in of_ranks], dim=1)
            assert together.flatten(0, 2).tolist() == value.tolist()
        assert sum(part.num_samples or len(part.input_ids) for part in parts) == 6
    assert {rank.num_batches for rank in ranks} == {whole.num_batches}


def test_planted_fault_a_rank_that_repeats_another(store: TokenStore) -> None:
    whole = training(store)(0).input_ids.tolist()
    wrong = [training(store, rank=0, world=2)(0).input_ids] * 2
    assert torch.stack(wrong, dim=1).flatten(0, 1).tolist() != whole


def test_seeds_give_other_batches(store: TokenStore) -> None:
    assert training(store, seed=0)(0).input_ids.tolist() != training(store, seed=1)(0).input_ids.tolist()


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.text("ab é", max_size=30), min_size=1, max_size=8),
    st.integers(1, 40),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 60),
)
def test_evaluation_counts_every_byte_once(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[str],
    length: int,
    batch_size: int,
    world: int,
    shard_tokens: int,
) -> None:
    tokenizer = ByteTokenizer()
    store = store_of(tmp_path_factory.mktemp("store"), documents, tokenizer, shard_tokens)
    ranks = [
        EvaluationBatches(EvaluationWindows(store, length), batch_size, rank, world) for rank in range(world)
    ]
    batches = [rank(index) for rank in ranks for index in range(rank.num_batches)]
    assert {tuple(batch.input_ids.shape) for batch in batches} == {tuple(batches[0].input_ids.shape)}
    assert len(batches[0].input_ids) <= batch_size
    targets = torch.cat([batch.targets.flatten() for batch in batches])
    targets = targets[targets != IGNORED_TARGET]
    lengths = torch.from_numpy(tokenizer.token_byte_lengths())
    assert int(lengths[targets].sum()) == sum(len(text.encode()) for text in documents)
    assert sorted(targets.tolist()) == sorted(store.tokens(0, store.num_tokens).tolist())
    # Waste: fewer than one row of nothing but ignored targets a batch, and one a rank.
    empty = sum(int((batch.targets == IGNORED_TARGET).all(dim=1).sum()) for batch in batches)
    assert empty < len(batches) + world


@pytest.mark.parametrize("shard_tokens", [20, 1 << 20])
def test_evaluation_predicts_the_stream_from_the_token_before(tmp_path: Path, shard_tokens: int) -> None:
    tokenizer = BPETokenizerConfig(270).build(["the text of the document is the text " * 9])
    documents = ["the text is this", "the next", "x"]
    store = store_of(tmp_path, documents, tokenizer, shard_tokens)
    stream = [tokenizer.end_of_text_id, *store.tokens(0, store.num_tokens).tolist()]
    batches = EvaluationBatches(EvaluationWindows(store, 5), 2, 0, 1)
    pairs: list[tuple[int, int]] = []
    for index in range(batches.num_batches):
        batch = batches(index)
        for inputs, targets in zip(batch.input_ids.tolist(), batch.targets.tolist(), strict=True):
            pairs += [(a, b) for a, b in zip(inputs, targets, strict=True) if b != IGNORED_TARGET]
    assert pairs == list(itertools.pairwise(stream))


def test_planted_fault_dropping_the_last_window_loses_bytes(store: TokenStore) -> None:
    batches = EvaluationBatches(EvaluationWindows(store, 7), 4, 0, 1)
    lengths = torch.from_numpy(ByteTokenizer().token_byte_lengths())
    counts = []
    for index in range(batches.num_batches):
        targets = batches(index).targets
        counts.append(int(lengths[targets[targets != IGNORED_TARGET]].sum()))
    assert sum(counts) == store.num_bytes
    assert sum(counts[:-1]) != store.num_bytes


def numbered(index: int) -> LanguageModelBatch:
    return LanguageModelBatch(torch.tensor([[index]]), torch.tensor([[index]]))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loader_begins_where_it_is_told(num_workers: int) -> None:
    first = 3
    loader = BatchLoader(numbered, 4, lambda: first, num_workers)
    assert len(loader) == 4
    assert [int(batch.input_ids) for batch in loader] == [3, 4, 5, 6]
    first = 10
    assert [int(batch.input_ids) for batch in loader] == [10, 11, 12, 13]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_iterating_draws_no_number_of_the_training(num_workers: int) -> None:
    """A resumed run begins to iterate once more, and must see the same dropout."""
    before = torch.random.get_rng_state()
    assert len(list(BatchLoader(numbered, 4, num_workers=num_workers))) == 4
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("sampling", [Windows(), SAMPLINGS[-1]], ids=repr)
def test_workers_make_the_same_batches(store: TokenStore, sampling: SamplingConfig) -> None:
    batches = training(store, sampling=sampling, length=8)
    here = BatchLoader(batches, 5, num_workers=0)
    there = BatchLoader(batches, 5, num_workers=2)
    for a, b in zip(here, there, strict=True):
        assert equal(a, b)
        assert a.num_samples == b.num_samples


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=repr)
def test_a_batch_depends_on_its_index_alone(store: TokenStore, sampling: SamplingConfig) -> None:
    """Whatever came before it, also in a copy that arrives in another process."""
    asked = training(store, sampling=sampling, length=8)
    forward = [asked(index) for index in range(12)]
    other = pickle.loads(pickle.dumps(training(store, sampling=sampling, length=8)))
    for index in (11, 0, 7, 3, 10):
        assert equal(other(index), forward[index])
    assert not equal(other(4), forward[3])
    assert not equal(training(store, seed=1, sampling=sampling, length=8)(3), forward[3])
