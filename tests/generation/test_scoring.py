"""Log-likelihoods: equal to a plain pass over each text, comparable, and shared work changes nothing."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from shaken_networks import build_shaken

from insight.data.tokenizers import BaseTokenizer, BPETokenizerConfig, ByteTokenizer
from insight.generation import log_likelihoods, scoring, translation_log_likelihoods
from insight.generation.translator import Translator
from insight.models import (
    Decoder,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    GroupedQueryAttention,
    NoPosition,
)
from insight.runtime.errors import ConfigError

CONTEXT = 48
TEXT = "She was the youngest of the two daughters. It is a truth universally acknowledged. " * 20
BYTES = ByteTokenizer()
BPE = BPETokenizerConfig(vocabulary_size=300).build([TEXT])


def make(tokenizer: BaseTokenizer) -> Decoder:
    torch.manual_seed(0)
    config = DecoderConfig(
        hidden_size=32,
        num_layers=2,
        attention=GroupedQueryAttention(num_heads=4, num_key_value_heads=2),
        max_sequence_length=CONTEXT,
        dropout=0.5,
    )
    network = config.build(tokenizer.vocabulary_size).double()
    with torch.no_grad():
        network.head_weight.mul_(5)  # scores that differ, so that a wrong position shows
    return network


def one_by_one(network: Decoder, ids: list[int], start: int) -> float:
    network.eval()
    with torch.no_grad():
        scores = network.logits(network(torch.tensor([ids[:-1]]))).float().log_softmax(-1)[0]
    return sum(float(scores[at - 1, ids[at]]) for at in range(start, len(ids)))


@pytest.mark.parametrize("tokenizer", [BYTES, BPE], ids=["bytes", "bpe"])
def test_equal_to_a_pass_over_each_text(tokenizer: BaseTokenizer) -> None:
    network = make(tokenizer)
    prompts = ["She was", "", "It is a truth"]
    continuations = [[" the youngest", " acknowledged."], ["She", "It", "daughters"], [" universally"]]
    found = log_likelihoods(network, tokenizer, prompts, continuations)
    for prompt, options, values in zip(prompts, continuations, found, strict=True):
        start = 1 + len(tokenizer.encode(prompt))
        for option, value in zip(options, values, strict=True):
            ids = [tokenizer.end_of_text_id, *tokenizer.encode(prompt + option)]
            assert value == pytest.approx(one_by_one(network, ids, start), rel=1e-5)


def test_a_token_over_the_seam_is_paid_for_by_all() -> None:
    network = make(BPE)
    # "the y" + "oungest": the merges of the whole word reach over the seam, those of "es" do not.
    prompt, options = "the y", ["oungest", "es"]
    start = [BPE.end_of_text_id, *BPE.encode(prompt)]
    whole = [[BPE.end_of_text_id, *BPE.encode(prompt + option)] for option in options]
    shared = min(
        sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(start, ids, strict=False)))
        for ids in whole
    )
    assert shared < len(start)
    values = log_likelihoods(network, BPE, [prompt], [options])[0]
    for ids, value in zip(whole, values, strict=True):
        assert value == pytest.approx(one_by_one(network, ids, shared), rel=1e-5)


def test_all_next_tokens_are_a_distribution() -> None:
    network = make(BYTES)
    digits = [f" {number:03d}" for number in range(1000)]
    values = log_likelihoods(network, BYTES, ["The number is"], [digits])[0]
    # Among all texts of four bytes these are a part, so their probabilities sum to less than 1.
    assert 0 < torch.tensor(values).exp().sum() < 1
    some = [0, 7, 123, 999]
    alone = log_likelihoods(network, BYTES, ["The number is"] * 4, [[digits[index]] for index in some])
    assert [values[index] for index in some] == pytest.approx([value for (value,) in alone], rel=1e-6)


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make(BYTES)
    prompts = ["a", "bb", "ccc"]
    continuations = [["x", "yz"], ["longer text"], ["z", "zz", "zzz"]]
    whole = log_likelihoods(network, BYTES, prompts, continuations)
    monkeypatch.setattr(scoring, "_TOKENS_A_PASS", 10)
    monkeypatch.setattr(scoring, "_SCORES_AT_ONCE", 3)
    pieces = log_likelihoods(network, BYTES, prompts, continuations)
    assert sum(whole, []) == pytest.approx(sum(pieces, []), rel=1e-6)  # noqa: RUF017


def test_long_prompts_lose_their_beginning() -> None:
    network = make(BYTES)
    value = log_likelihoods(network, BYTES, ["q" * 100], [["Emma"]])[0][0]
    ids = [*([BYTES.encode("q")[0]] * 45), *BYTES.encode("Emma")]
    assert value == pytest.approx(one_by_one(network, ids, 45), rel=1e-5)
    with pytest.raises(ConfigError, match="the context holds 48"):
        log_likelihoods(network, BYTES, [""], [["q" * 60]])
    with pytest.raises(ConfigError, match="empty continuation"):
        log_likelihoods(network, BYTES, ["Emma"], [["x", ""]])


def test_mode_and_random_state_are_untouched() -> None:
    network = make(BYTES).train()
    before = torch.get_rng_state()
    first = log_likelihoods(network, BYTES, ["Emma"], [[" was"]])
    assert first == log_likelihoods(network, BYTES, ["Emma"], [[" was"]])  # no dropout
    assert network.training
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture(scope="module")
def translator() -> Translator:
    sizes: dict[str, Any] = {"hidden_size": 32, "num_layers": 1, "max_sequence_length": CONTEXT}
    sizes["attention"] = GroupedQueryAttention(num_heads=4)
    cross = GroupedQueryAttention(num_heads=4, position=NoPosition())
    config = EncoderDecoderConfig(EncoderConfig(**sizes), DecoderConfig(**sizes, dropout=0.5), cross)
    network = build_shaken(config, BPE.vocabulary_size, noise=0.3)
    assert isinstance(network, EncoderDecoder)
    return Translator(network.double(), BPE, BPE, tag_id=7)


def test_translations_are_as_likely_as_a_pass_over_each_pair_says(translator: Translator) -> None:
    sources = ["It is a truth", "She was", "the youngest of the two"]
    options = [["She was", "She was the youngest", "daughters"], ["It"], ["truth is", "universally is"]]
    network = translator.network.eval()
    for source, texts, values in zip(
        sources, options, translation_log_likelihoods(translator, sources, options), strict=True
    ):
        rows = torch.tensor([[7, *BPE.encode(source), BPE.end_of_text_id]])
        for text, value in zip(texts, values, strict=True):
            ids = [BPE.end_of_text_id, *BPE.encode(text)]
            with torch.no_grad():
                hidden = network(rows, torch.tensor([ids[:-1]]))
                scores = network.logits(hidden).float().log_softmax(-1)[0]
            expected = sum(float(scores[at - 1, ids[at]]) for at in range(1, len(ids)))
            assert value == pytest.approx(expected, rel=1e-5)
    # Another source gives other values, so the source is read.
    (other,) = translation_log_likelihoods(translator, sources[1:2], options[:1])
    (first,) = translation_log_likelihoods(translator, sources[:1], options[:1])
    assert all(abs(one - two) > 1e-3 for one, two in zip(first, other, strict=True))


def test_pairs_that_do_not_fit_are_refused(translator: Translator) -> None:
    for sources, options in ((["x" * 60], [["a"]]), (["a"], [["x" * 60]]), (["a"], [[""]])):
        with pytest.raises(ConfigError):
            translation_log_likelihoods(translator, sources, options)
