"""A translation network as a target: greedy and drawn translations, forced beginnings, sentences too long."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shaken_networks import build_shaken

from insight.data import BPETokenizerConfig
from insight.generation import GenerationSettings
from insight.generation.translator import Translator
from insight.models import (
    DecoderConfig,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    GroupedQueryAttention,
    NoPosition,
)
from insight.safety import TranslatorTarget
from insight.safety.targets import Unanswered, languages_of

TEXT = "one two three four five six seven eight nine ten " * 9
TOKENIZER = BPETokenizerConfig(vocabulary_size=290).build([TEXT])
GREEDY, DRAWN = GenerationSettings(max_new_tokens=8, temperature=0), GenerationSettings(8, 1.0)
SENTENCES = ["one two", "three", "four five six seven"]


@pytest.fixture(scope="module")
def target() -> TranslatorTarget:
    sizes: dict[str, Any] = {"hidden_size": 32, "num_layers": 1, "max_sequence_length": 40}
    sizes["attention"] = GroupedQueryAttention(num_heads=4)
    cross = GroupedQueryAttention(num_heads=4, position=NoPosition())
    config = EncoderDecoderConfig(EncoderConfig(**sizes), DecoderConfig(**sizes), cross, logit_bias=True)
    network = build_shaken(config, TOKENIZER.vocabulary_size, noise=0.3)
    assert isinstance(network, EncoderDecoder)
    assert network.logit_bias is not None
    with torch.no_grad():  # it writes pieces of words, so that its text gives the same tokens again
        lengths = [len(TOKENIZER.token_bytes(token)) for token in range(TOKENIZER.vocabulary_size)]
        network.logit_bias.copy_(torch.tensor([30.0 * (length > 2) for length in lengths]))
    return TranslatorTarget(Translator(network.float(), TOKENIZER, TOKENIZER), ("en", "es"), "tiny", "tiny")


def test_greedy_translations_do_not_depend_on_neighbours_or_seeds(target: TranslatorTarget) -> None:
    together = target.generate(SENTENCES, GREEDY, [1, 2, 3])
    assert together == [target.generate([one], GREEDY, [9])[0] for one in SENTENCES]
    assert len(set(together)) == 3
    assert languages_of(target) == ("en", "es")


def test_drawn_translations_follow_from_their_seeds(target: TranslatorTarget) -> None:
    before = torch.get_rng_state()
    first = target.generate(["one"] * 3, DRAWN, [1, 2, 1])
    assert first == target.generate(["one"] * 3, DRAWN, [1, 2, 1])
    assert first[0] == first[2] != first[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_forced_beginning_is_neither_returned_nor_counted(target: TranslatorTarget) -> None:
    beginnings = ["ten nine", "eight", "seven six five four three"]
    found = target.complete(SENTENCES, beginnings, GREEDY, [0, 0, 0])
    alone = [
        target.complete([one], [beginning], GREEDY, [0])[0]
        for one, beginning in zip(SENTENCES, beginnings, strict=True)
    ]
    assert found == alone
    assert found != target.generate(SENTENCES, GREEDY, [0, 0, 0])
    # What follows the beginning of a greedy translation is the rest of that translation.
    (whole,) = target.generate(["three"], GREEDY, [0])
    assert isinstance(whole, str)
    ids = TOKENIZER.encode(whole)
    assert len(ids) == 8
    settings = GenerationSettings(max_new_tokens=7, temperature=0)
    (rest,) = target.complete(["three"], [TOKENIZER.decode(ids[:1])], settings, [0])
    assert rest == TOKENIZER.decode(ids[1:])


def test_a_sentence_that_is_too_long_is_an_error_of_its_own(target: TranslatorTarget) -> None:
    long, short, blank = target.generate(["z" * 60, "one", " "], GREEDY, [0, 0, 0])
    assert isinstance(long, Unanswered)
    assert "longer than the 40 tokens that the network reads" in long.message
    assert isinstance(short, str)
    assert blank == ""
    values = target.log_likelihood(["z" * 60, "one"], [["a"], ["a", "b"]])
    assert isinstance(values[0], Unanswered)
    assert not isinstance(values[1], Unanswered)
    assert all(value < 0 for value in values[1])
