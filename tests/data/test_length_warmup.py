"""Short sequences first: lengths are a function of the batch's number, and no token is lost unless asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_packing import segments, store_of

from insight.data import IGNORED_TARGET, Packing, SequenceLengthWarmup, TokenStore, Windows
from insight.data.loaders import TrainingBatches
from insight.data.sampling import Corpus, SamplingConfig
from insight.runtime.errors import ConfigError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return store_of(tmp_path_factory.mktemp("store"), [*range(1, 50), 300])


def batches(store: TokenStore, sampling: SamplingConfig, batch_size: int = 3) -> TrainingBatches:
    samples = sampling.build([Corpus("", "text", store)], 16, 0)
    return TrainingBatches(samples, batch_size, 0, 1, sampling=sampling)


def test_length_doubles_in_equal_stages() -> None:
    warmup = SequenceLengthWarmup(4, 10)
    assert [warmup.length_at(index, 32) for index in range(12)] == [4] * 4 + [8] * 3 + [16] * 3 + [32] * 2
    assert SequenceLengthWarmup(32, 5).length_at(0, 32) == 32


@pytest.mark.parametrize("inner", [Windows(), Packing()], ids=repr)
def test_a_batch_keeps_its_tokens(store: TokenStore, inner: SamplingConfig) -> None:
    whole, warming = batches(store, inner), batches(store, SequenceLengthWarmup(4, 4, sampling=inner))
    for index in range(6):
        expected, found = whole(index), warming(index)
        length = 4 if index < 2 else 8 if index < 4 else 16
        assert found.input_ids.shape == (3 * 16 // length, length)
        assert found.input_ids.flatten().tolist() == expected.input_ids.flatten().tolist()
        assert found.targets.flatten().tolist() == expected.targets.flatten().tolist()
        assert found.num_samples == (3 if length < 16 else None)
        if isinstance(inner, Packing):
            segments(found)  # positions begin anew in every row and document


def test_or_keeps_its_rows(store: TokenStore) -> None:
    whole, warming = batches(store, Windows()), batches(store, SequenceLengthWarmup(4, 4, keep_tokens=False))
    for index in range(6):
        found = warming(index)
        length = 4 if index < 2 else 8 if index < 4 else 16
        assert found.input_ids.tolist() == whole(index).input_ids[:, :length].tolist()
        assert found.targets.tolist() == whole(index).targets[:, :length].tolist()
        assert found.input_ids.is_contiguous()


def test_every_token_of_an_epoch_that_warms_up_is_a_target_once(store: TokenStore) -> None:
    warming = batches(store, SequenceLengthWarmup(2, 8, sampling=Packing()), 1)
    targets = np.concatenate(
        [warming(index).targets.flatten().numpy() for index in range(warming.num_batches)]
    )
    found = targets[targets != IGNORED_TARGET]
    assert sorted(found.tolist()) == sorted(store.tokens(0, store.num_tokens).tolist())


@pytest.mark.parametrize(
    ("start", "length", "remedy"),
    [(3, 16, "use 8, 4, 2, 1"), (32, 16, "use 8, 4, 2, 1"), (4, 24, "use 12, 6, 3"), (4, 9, "even")],
)
def test_lengths_that_never_meet(start: int, length: int, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SequenceLengthWarmup(start).check([""], length)
    assert (caught.value.option, caught.value.value) == ("start_length", start)
    assert remedy in caught.value.remedy


def test_wrong_values(tmp_path: Path) -> None:
    for option, value in (("start_length", 0), ("num_batches", 0), ("sampling", SequenceLengthWarmup())):
        with pytest.raises(ConfigError) as caught:
            SequenceLengthWarmup(**{option: value})  # type: ignore[arg-type]
        assert caught.value.option == option
