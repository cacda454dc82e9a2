"""Packed rows hold every token once, whole documents, and no document sees another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data import IGNORED_TARGET, LanguageModelBatch, Packing, TokenStore
from insight.data.loaders import TrainingBatches
from insight.data.sampling import Corpus
from insight.data.sampling.packing import PackedSamples, best_fit_decreasing, plan_rows
from insight.data.store import StoreWriter
from insight.data.tokenizers import ByteTokenizer, EncodedBatch
from insight.runtime.errors import ConfigError

END = ByteTokenizer().end_of_text_id


def store_of(folder: Path, lengths: list[int], shard_tokens: int = 1 << 20) -> TokenStore:
    """Documents of these lengths without their end-of-text tokens; ids count on, so that order shows."""
    writer = StoreWriter(folder, ByteTokenizer(), shard_tokens)
    ids = np.arange(sum(lengths), dtype=np.int64) % 251
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    writer.append(EncodedBatch(ids, offsets), len(ids))
    writer.close({})
    return TokenStore(folder)


def packed(store: TokenStore, sequence_length: int, seed: int = 0) -> PackedSamples:
    samples = Packing().build([Corpus("", "text", store)], sequence_length, seed)
    assert isinstance(samples, PackedSamples)
    return samples


def segments(batch: LanguageModelBatch) -> list[tuple[list[int], list[int]]]:
    """Inputs and targets of every document or part of one, padding left out."""
    assert batch.document_ids is not None
    assert batch.position_ids is not None
    found = []
    for inputs, targets, ids, positions in zip(
        batch.input_ids.tolist(),
        batch.targets.tolist(),
        batch.document_ids.tolist(),
        batch.position_ids.tolist(),
        strict=True,
    ):
        for document in dict.fromkeys(ids):
            places = [place for place, of in enumerate(ids) if of == document]
            assert places == list(range(places[0], places[-1] + 1)), "a document is in one piece"
            assert [positions[place] for place in places] == list(range(len(places)))
            wanted = [targets[place] for place in places]
            if wanted[0] == IGNORED_TARGET:
                assert set(wanted) == {IGNORED_TARGET}
                assert places[-1] == len(ids) - 1
                continue
            assert IGNORED_TARGET not in wanted
            found.append(([inputs[place] for place in places], wanted))
    return found


def epoch_of(store: TokenStore, length: int, epoch: int = 0) -> list[tuple[list[int], list[int]]]:
    batches = TrainingBatches(packed(store, length), 1, 0, 1)
    first = epoch * batches.num_batches
    return [pair for index in range(batches.num_batches) for pair in segments(batches(first + index))]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=25),
    st.integers(1, 17),
    st.integers(1, 90),
    st.integers(0, 3),
)
def test_every_token_is_a_target_once_and_no_document_crosses_unseen(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], length: int, shard_tokens: int, epoch: int
) -> None:
    store = store_of(tmp_path_factory.mktemp("store"), lengths, shard_tokens)
    stream = store.tokens(0, store.num_tokens).tolist()
    # Independently of the packer: each document's parts, cut every `length` tokens.
    expected = []
    start = 0
    for stop in np.cumsum(np.asarray(lengths) + 1).tolist():
        for first in range(start, stop, length):
            part = stream[first : min(first + length, stop)]
            before = stream[first - 1] if first else END
            expected.append(([before, *part[:-1]], part))
        start = stop
    assert sorted(epoch_of(store, length, epoch)) == sorted(expected)
    # The first token of every document is predicted from the end of text.
    assert sum(inputs[0] == END for inputs, _ in expected) >= len(lengths)


def one_by_one(lengths: list[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing as it is told: each item alone, every bin looked at."""
    bins: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        fitting = [bin_ for bin_ in bins if sum(bin_) + length <= capacity]
        if fitting:
            max(fitting, key=sum).append(length)
        else:
            bins.append([length])
    return bins


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.data())
def test_items_of_one_length_together_pack_as_one_by_one(capacity: int, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=60))
    bins = best_fit_decreasing(np.array(lengths, dtype=np.int64), capacity)
    filled: dict[int, list[int]] = {}
    for length, number in zip(lengths, bins.tolist(), strict=True):
        filled.setdefault(number, []).append(length)
    assert sorted(filled) == list(range(len(filled)))
    assert all(sum(items) <= capacity for items in filled.values())
    # Which of two equally full bins is taken is nobody's business.
    assert sorted(map(sum, filled.values())) == sorted(map(sum, one_by_one(lengths, capacity)))


def test_packing_is_near_the_best_and_better_than_first_come(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(4.5, 1.0, 20_000).astype(np.int64), 1, 3000)
    store = store_of(tmp_path, lengths.tolist())
    samples = packed(store, 512)
    assert samples.waste < 0.01
    # First come, first served: a new row when the next document does not fit.
    rows, room = 0, 0
    for length in (np.minimum((lengths + 1) % 512, 512)).tolist():
        if length > room:
            rows, room = rows + 1, 512
        room -= length
    whole = int(((lengths + 1) // 512).sum())
    assert 1 - store.num_tokens / ((rows + whole) * 512) > 3 * samples.waste


def test_a_million_documents_are_packed_in_seconds() -> None:
    import time

    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(5.5, 1.0, 1_000_000).astype(np.int64), 1, 20_000)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    begun = time.process_time()
    plan = plan_rows(starts, 2048)
    assert time.process_time() - begun < 15, "0.3 s were measured"
    assert int(plan.lengths.sum()) == int(lengths.sum())
    assert plan.row_offsets[-1] == len(plan.starts)


def test_rows_are_full_up_to_the_waste(tmp_path: Path) -> None:
    store = store_of(tmp_path, [30, 3, 3, 9, 1, 14])  # 66 tokens with the ends
    samples = packed(store, 16)
    # 31 = 16 + 15; 15 with 4, 4, 10, 2 in rows of 16: [16] [15] [15] [10 4 2] [4]
    assert samples.num_samples == 5
    assert samples.waste == pytest.approx(1 - 66 / 80)
    assert samples.facts() == {"rows": 5, "documents_and_parts": 7, "waste": samples.waste}
    assert "17.50% of the places stay empty" in samples.notes()[0]


def test_epochs_are_other_orders_of_the_same_rows(tmp_path: Path) -> None:
    store = store_of(tmp_path, list(range(1, 60)))
    first, second = epoch_of(store, 16, 0), epoch_of(store, 16, 1)
    assert first != second
    assert sorted(first) == sorted(second)


def planted_shift(tokens: npt.NDArray[np.int64], *_: object) -> npt.NDArray[np.int64]:
    return np.roll(tokens, 1)


def test_planted_fault_a_piece_read_one_token_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tmp_path, [12, 7, 5, 30])
    right = epoch_of(store, 16)
    read = TokenStore.pieces
    monkeypatch.setattr(TokenStore, "pieces", lambda self, *where: planted_shift(read(self, *where)))
    assert sorted(epoch_of(store, 16)) != sorted(right)


def test_planted_fault_documents_with_one_id_are_seen_as_one(tmp_path: Path) -> None:
    store = store_of(tmp_path, [5, 5, 5])
    batch = TrainingBatches(packed(store, 16), 1, 0, 1)(0)
    assert len({len(inputs) for inputs, _ in segments(batch)}) == 1
    assert batch.document_ids is not None
    batch.document_ids.fill_(0)
    with pytest.raises(AssertionError):
        segments(batch)


def test_items_that_fit_no_bin() -> None:
    for lengths in ([3, 0], [17]):
        with pytest.raises(ConfigError, match=r"must lie in 1\.\.16"):
            best_fit_decreasing(np.array(lengths, dtype=np.int64), 16)
    assert len(best_fit_decreasing(np.array([], dtype=np.int64), 16)) == 0
