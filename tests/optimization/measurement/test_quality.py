"""Bits per byte: what validation says, what brute force says, every byte once; differences that are there."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from insight.data import ByteTokenizerConfig, LanguageModelingDataModule
from insight.data.corpora import read_corpus
from insight.models import Decoder, DecoderConfig, GroupedQueryAttention, SwiGLU
from insight.optimization.measurement import Quality, compare_quality, measure_quality
from insight.runtime.errors import CheckpointError, ConfigError, DataError
from insight.training import LanguageModelingModule

VOCABULARY, END_OF_TEXT = 11, 10
# Some ids stand for several bytes, the last (end of text) for none.
BYTES = np.array([1, 2, 3, 1, 1, 4, 1, 2, 1, 1, 0])
CONFIG = DecoderConfig(
    hidden_size=16,
    num_layers=1,
    attention=GroupedQueryAttention(num_heads=2, num_key_value_heads=1),
    feed_forward=SwiGLU(intermediate_size=32),
    max_sequence_length=64,
)


@pytest.fixture
def network() -> Decoder:
    torch.manual_seed(5)
    built = CONFIG.build(VOCABULARY)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return built.double()


def random_text(num_tokens: int, seed: int = 0) -> np.ndarray:
    ids = np.random.default_rng(seed).integers(0, VOCABULARY - 1, num_tokens)
    ids[num_tokens // 2] = END_OF_TEXT
    ids[-1] = END_OF_TEXT
    return ids


def measure(network: Decoder, tokens: np.ndarray, length: int = 8, batch_size: int = 32) -> Quality:
    return measure_quality(network, tokens, BYTES, length, batch_size, end_of_text_id=END_OF_TEXT)


def by_brute_force(network: Decoder, tokens: Sequence[int], length: int) -> list[float]:
    """One token at a time: its window up to it, a softmax in numpy, no batches and no padding."""
    costs = []
    for index, token in enumerate(tokens):
        first = index // length * length
        before = [END_OF_TEXT if first == 0 else int(tokens[first - 1]), *map(int, tokens[first:index])]
        with torch.no_grad():
            scores = network.logits(network(torch.tensor([before]))[0, -1]).numpy()
        costs.append(float(np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[int(token)]))
    return costs


@pytest.mark.parametrize("num_tokens", [1, 7, 8, 9, 30, 33])
def test_equals_brute_force_and_counts_every_byte_once(network: Decoder, num_tokens: int) -> None:
    tokens = random_text(num_tokens)
    tokens[0] = 1  # a text of one token must not be an empty one
    costs = by_brute_force(network, tokens, 8)
    quality = measure(network, tokens, batch_size=3)
    np.testing.assert_allclose(quality.token_nats, costs, rtol=1e-12)
    assert quality.num_bytes.sum() == BYTES[tokens].sum()
    assert len(quality.nats) == len(quality.num_bytes) == -(-num_tokens // 8)
    np.testing.assert_allclose(quality.nats[-1], sum(costs[(len(quality.nats) - 1) * 8 :]), rtol=1e-12)
    assert quality.bits_per_byte == pytest.approx(sum(costs) / math.log(2) / BYTES[tokens].sum(), rel=1e-12)


def test_forgetting_the_last_window_would_be_noticed(network: Decoder) -> None:
    """The twin: an evaluator that drops what does not fill a window counts fewer bytes."""
    tokens = random_text(30)
    dropped = measure(network, tokens[: 30 // 8 * 8])
    assert dropped.num_bytes.sum() < BYTES[tokens].sum()
    assert dropped.bits_per_byte != pytest.approx(measure(network, tokens).bits_per_byte, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_batches_change_nothing(network: Decoder, batch_size: int) -> None:
    tokens = random_text(61)
    found = measure(network, tokens, batch_size=batch_size)
    np.testing.assert_allclose(found.token_nats, measure(network, tokens).token_nats, rtol=1e-12)


def test_every_batch_has_one_shape_so_that_compiling_happens_once(network: Decoder) -> None:
    shapes: set[tuple[int, ...]] = set()
    network.register_forward_pre_hook(lambda _, arguments: shapes.add(tuple(arguments[0].shape)))
    measure(network, random_text(8 * 10 + 3), batch_size=4)
    assert shapes == {(4, 8)}


def test_scores_in_pieces_are_the_same(network: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from insight.optimization.measurement import quality

    tokens = random_text(50)
    whole = measure(network, tokens)
    monkeypatch.setattr(quality, "_SCORES_AT_ONCE", 1)
    np.testing.assert_allclose(measure(network, tokens).token_nats, whole.token_nats, rtol=1e-12)


def test_equals_the_validation_of_the_trainer(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(read_corpus("austen-emma")[:5_000], encoding="utf-8")
    data = LanguageModelingDataModule(
        str(tmp_path / "text.txt"),
        tokenizer=ByteTokenizerConfig(),
        cache_dir=str(tmp_path / "cache"),
        sequence_length=32,
        batch_size=4,
        validation_fraction=0.3,
    )
    torch.manual_seed(0)
    module = LanguageModelingModule(CONFIG)
    trainer = pl.Trainer(
        default_root_dir=str(tmp_path),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    (metrics,) = trainer.validate(module, data, verbose=False)
    store = data.store("validation")
    assert store.num_tokens % 32  # the last window is a partial one
    quality = measure_quality(
        module.network,
        store.tokens(0, store.num_tokens),
        data.tokenizer.token_byte_lengths(),
        32,
        end_of_text_id=store.end_of_text_id,
    )
    assert quality.bits_per_byte == pytest.approx(metrics["validation/bits_per_byte"], rel=1e-6)
    assert quality.num_bytes.sum() == store.num_bytes


def test_the_network_is_left_as_it_was(network: Decoder) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    measure(network, random_text(20))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def made_quality(costs: np.ndarray, length: int = 4) -> Quality:
    return Quality(costs, np.full(len(costs), 2), length)


def test_an_identical_model_differs_by_nothing(network: Decoder) -> None:
    tokens = random_text(400)
    interval = compare_quality(measure(network, tokens), measure(network, tokens))
    assert (interval.value, interval.low, interval.high) == (0.0, 0.0, 0.0)


def test_a_damaged_layer_is_found(network: Decoder) -> None:
    """A network that has learned something loses it; an undamaged copy loses nothing."""
    tokens = np.resize(np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7]), 1_000)
    inputs, targets = torch.from_numpy(tokens[:-1])[None], torch.from_numpy(tokens[1:])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        scores = network.logits(network(inputs[:, :64]))[0]
        torch.nn.functional.cross_entropy(scores, targets[:64]).backward()
        optimizer.step()
    before, copied = measure(network, tokens), measure(copy.deepcopy(network), tokens)
    assert compare_quality(before, copied).high == 0
    with torch.no_grad():
        network.blocks[0].attention.output.weight.mul_(-1)
    assert compare_quality(before, measure(network, tokens)).low > 0


def test_a_planted_difference_is_found_because_of_the_pairs() -> None:
    """Windows differ a lot among themselves and the models by little; unpaired, that is not seen."""
    generator = np.random.default_rng(1)
    hard = np.repeat(generator.gamma(2.0, 4.0, 300), 4)
    a = made_quality(hard)
    b = made_quality(hard * (1 + 0.01 * generator.random(1200)))
    interval = compare_quality(a, b)
    assert 0 < interval.low < interval.value < interval.high
    assert interval.value == pytest.approx(b.bits_per_byte - a.bits_per_byte, rel=1e-9)
    shuffled = made_quality(b.token_nats.reshape(300, 4)[generator.permutation(300)].ravel())
    unpaired = compare_quality(a, shuffled)
    assert unpaired.low < 0 < unpaired.high


def test_seeds_repeat_and_matter() -> None:
    generator = np.random.default_rng(2)
    a, b = (made_quality(generator.random(400)) for _ in range(2))
    assert compare_quality(a, b, 3) == compare_quality(a, b, 3)
    assert compare_quality(a, b, 3) != compare_quality(a, b, 4)


def test_models_with_other_tokenizers_compare_on_the_same_bytes() -> None:
    """Every byte costs as much for both, but one reads single bytes and the other words of three."""
    generator = np.random.default_rng(3)
    per_byte = generator.random(3_000)
    # End-of-text tokens, which cost something and stand for no byte: at the start, inside and at the end.
    fine = Quality(
        np.concatenate([[0.5], per_byte[:1500], [0.25], per_byte[1500:], [0.75]]),
        np.concatenate([[0], np.ones(1500, dtype=int), [0], np.ones(1500, dtype=int), [0]]),
        100,
    )
    words = per_byte.reshape(-1, 3).sum(1)
    coarse = Quality(
        np.concatenate([[0.5], words[:500], [0.25], words[500:], [0.75]]),
        np.concatenate([[0], np.full(500, 3), [0], np.full(500, 3), [0]]),
        40,
    )
    interval = compare_quality(fine, coarse)
    assert interval.value == pytest.approx(0.0, abs=1e-12)
    assert interval.low < 1e-12  # only what a word spreads over the edge of a stretch
    assert abs(interval.low) + abs(interval.high) < 0.02 * fine.bits_per_byte
    worse = Quality(coarse.token_nats * 1.05, coarse.token_bytes, 40)
    found = compare_quality(fine, worse)
    assert found.value == pytest.approx(worse.bits_per_byte - fine.bits_per_byte, rel=1e-9)
    assert found.low > 0


def test_texts_of_different_length_do_not_compare() -> None:
    with pytest.raises(DataError, match="16 bytes, the other on 8"):
        compare_quality(made_quality(np.ones(8)), made_quality(np.ones(4)))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"tokens": np.array([], dtype=int)}, DataError, "no text"),
        ({"tokens": np.array([END_OF_TEXT])}, DataError, "no bytes"),
        ({"tokens": np.array([1, 11])}, DataError, "token id 11, the network knows 0 to 10"),
        ({"tokens": np.array([1, -1])}, DataError, "token id -1"),
        ({"bytes_per_token": BYTES[:-1]}, DataError, "the tokenizer has 10 tokens, the network 11"),
        ({"sequence_length": 0}, ConfigError, "sequence_length=0"),
        ({"sequence_length": 65}, ConfigError, "sequence_length=65"),
        ({"batch_size": 0}, ConfigError, "batch_size=0"),
    ],
)
def test_wrong_input(network: Decoder, options: dict, error: type[Exception], said: str) -> None:
    arguments = {"tokens": random_text(9), "bytes_per_token": BYTES, "sequence_length": 8, **options}
    with pytest.raises(error, match=said):
        measure_quality(network, **arguments, end_of_text_id=END_OF_TEXT)


def test_weights_that_are_not_numbers_are_refused(network: Decoder) -> None:
    with torch.no_grad():
        network.norm.weight.fill_(math.nan)
    with pytest.raises(CheckpointError, match="no finite probability to token 0"):
        measure(network, random_text(9))
