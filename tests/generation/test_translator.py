"""A sentence's translation alone and in any batch, samples, coverage, constraints on texts, and mistakes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from shaken_networks import build_shaken

from insight.data.tokenizers import ByteTokenizerConfig
from insight.generation import GNMTLength, MarianLength, SearchSettings, Sentence, beam_search, translator
from insight.generation.scorers import DecoderScorer, EncoderDecoderScorer
from insight.generation.settings import Sampling
from insight.generation.translator import Translation, TranslationSettings, Translator
from insight.models import (
    DecoderConfig,
    EncoderConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    GroupedQueryAttention,
    NoPosition,
)
from insight.runtime.errors import CheckpointError, ConfigError

BYTES = ByteTokenizerConfig().build(())
TEXTS = ["a", "to be", "or not to be, that is the question", "x" * 20, "to", "be or", "", "question"]
# Seed 4 meets two tokens whose perturbed scores differ by 1e-6, which rounding can turn round.
SAMPLES = SearchSettings(3, 3, sampling=Sampling(temperature=0.8, top_k=20, seed=11))
SEARCHES = [
    SearchSettings(1),
    SearchSettings(4, 2, no_repeat_ngram=2),
    SearchSettings(3, 3, MarianLength(0.8)),
    SearchSettings(3, 1, GNMTLength(), coverage_penalty=0.3),
    SAMPLES,
]


def network() -> EncoderDecoder:
    sizes: dict[str, Any] = {"hidden_size": 32, "num_layers": 1, "max_sequence_length": 40}
    sizes["attention"] = GroupedQueryAttention(4)
    cross = GroupedQueryAttention(4, position=NoPosition())
    config = EncoderDecoderConfig(EncoderConfig(**sizes), DecoderConfig(**sizes), cross, logit_bias=True)
    built = build_shaken(config, BYTES.vocabulary_size, noise=0.2)
    assert isinstance(built, EncoderDecoder)
    assert built.logit_bias is not None
    with torch.no_grad():
        built.logit_bias.zero_()[BYTES.end_of_text_id] += 2.0  # texts end after different numbers of tokens
    return built.float()


@pytest.fixture(scope="module")
def model() -> Translator:
    return Translator(network(), BYTES, BYTES)


def options(search: SearchSettings, **others: Any) -> TranslationSettings:
    return TranslationSettings(search, max_length_factor=1.0, max_length_offset=6, **others)


def assert_equal(one: Translation, other: Translation) -> None:
    token_ids = [[found.token_ids for _, found in each.hypotheses] for each in (one, other)]
    assert token_ids[0] == token_ids[1]
    scores = [[found.score for _, found in each.hypotheses] for each in (one, other)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert one.text == other.text


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.signature)
def test_neighbours_change_nothing(model: Translator, search: SearchSettings) -> None:
    alone = [model.translate([text], options(search))[0] for text in TEXTS]

    @examples(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(st.permutations(range(len(TEXTS))), st.integers(1, 8))
    def check(order: list[int], batch_size: int) -> None:
        texts = [TEXTS[index] for index in order]
        found = model.translate(texts, options(search, batch_size=batch_size))
        for index, translation in zip(order, found, strict=True):
            assert_equal(translation, alone[index])
        # Two ranks translate every other sentence.
        shares = [model.translate(texts[rank::2], options(search)) for rank in (0, 1)]
        for number, index in enumerate(order):
            assert_equal(shares[number % 2][number // 2], alone[index])

    check()
    assert len({len(one.hypotheses[0][1].token_ids) for one in alone if one.hypotheses}) > 2


@pytest.mark.parametrize("fault", ["limit of the batch", "seeds by place", "padding is read"])
def test_a_dependence_would_be_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, search = Translator(network(), BYTES, BYTES), SAMPLES if "seeds" in fault else SEARCHES[1]
    alone = [model.translate([text], options(search))[0] for text in TEXTS if text]
    if fault == "padding is read":
        encode = EncoderDecoder.encode
        monkeypatch.setattr(EncoderDecoder, "encode", lambda self, ids, **_: encode(self, ids))
    else:

        def faulty(scorer: Any, sentences: list[Sentence], *others: Any) -> Any:
            longest = max(sentence.max_length for sentence in sentences)
            changed = [
                Sentence(longest) if fault == "limit of the batch" else Sentence(one.max_length, seed=place)
                for place, one in enumerate(sentences)
            ]
            return beam_search(scorer, changed, *others)

        monkeypatch.setattr(translator, "beam_search", faulty)
    together = model.translate([text for text in TEXTS if text], options(search))
    assert [one.text for one in together] != [one.text for one in alone]


def test_padding_on_the_left_finds_the_same() -> None:
    built = network().eval()
    rows = [[5, 6, 7, 8, 9], [10, 11]]
    settings, sentences = SearchSettings(3, 3), [Sentence(9)] * 2
    with torch.inference_mode():
        right = EncoderDecoderScorer(built, rows, 9, 0, 200)
        expected = beam_search(right, sentences, BYTES.end_of_text_id, settings)
        ids, mask = torch.tensor([rows[0], [0, 0, 0, *rows[1]]]), torch.tensor([[1] * 5, [0, 0, 0, 1, 1]])
        positions = torch.tensor([[0, 1, 2, 3, 4], [0, 0, 0, 0, 1]])
        states = built.encode(ids, source_mask=mask.bool(), position_ids=positions)
        left = EncoderDecoderScorer(built, rows, 9, 0, 200)
        left._cache = built.make_beam_cache(states, 10)
        found = beam_search(left, sentences, BYTES.end_of_text_id, settings)
    for one, other in zip(expected, found, strict=True):
        assert [hypothesis.token_ids for hypothesis in one] == [hypothesis.token_ids for hypothesis in other]
        scores = [[hypothesis.score for hypothesis in each] for each in (one, other)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_samples_follow_the_distribution_and_the_seed(model: Translator) -> None:
    """The share of each first token is its probability, within five standard errors."""
    built, count = network().eval(), 3000
    settings = SearchSettings(count, count, sampling=Sampling(seed=1))
    with torch.inference_mode():
        scorer = EncoderDecoderScorer(built, [[5, 6, 7]], 1, 0, 200)
        expected = scorer.first_scores().exp()[0]
        scorer = EncoderDecoderScorer(built, [[5, 6, 7]], 1, 0, 200)
        found = beam_search(scorer, [Sentence(1, seed=7)], 199, settings)[0]
    counts = torch.bincount(torch.tensor([one.token_ids[0] for one in found if one.token_ids]), minlength=200)
    errors = (expected * (1 - expected) / count).sqrt()
    assert ((counts[:199] / count - expected[:199]).abs() < 5 * errors[:199] + 2 / count).all()
    others = SearchSettings(3, 3, sampling=Sampling(temperature=0.8, top_k=20, seed=5))
    texts = [[one.text for one in model.translate(TEXTS, options(search))] for search in (SAMPLES, others)]
    assert texts[0] != texts[1]


def test_coverage_is_added_as_in_its_formula() -> None:
    built = network().eval()
    rows, penalty = [[5, 6, 7, 8], [9, 10]], 0.5

    def found(factor: float) -> Any:
        scorer = EncoderDecoderScorer(built, rows, 6, 0, 200, measures_coverage=True)
        settings = SearchSettings(4, 4, coverage_penalty=factor)
        return beam_search(scorer, [Sentence(6)] * 2, BYTES.end_of_text_id, settings)

    from insight.generation.alignment import recorded_cross_attention

    with torch.inference_mode():
        for row, hypotheses in zip(rows, found(penalty), strict=True):
            assert hypotheses
            for one in hypotheses:
                read = [0, *one.token_ids][: len(one.token_ids) + one.is_finished]
                with recorded_cross_attention(built) as weights:
                    built(torch.tensor([row]), torch.tensor([read]))
                attention = weights[-1].mean(1).sum(1)[0]
                bonus = penalty * float(attention.clamp(max=1).log().sum())
                length = len(one.token_ids) + one.is_finished
                assert one.score == pytest.approx(one.log_probability / length + bonus, abs=1e-4)
        assert found(penalty) != found(0.0)


def test_constraints_hold_for_texts(model: Translator) -> None:
    free = model.translate(TEXTS[:4], options(SEARCHES[1]))
    letter = next(one.text for one in free if one.text)[0]
    without = model.translate(TEXTS[:4], options(SEARCHES[1], must_not_contain=(letter,)))
    assert any(letter in one.text for one in free)
    assert not any(letter in text for one in without for text, _ in one.hypotheses)
    with_word = model.translate(TEXTS[:4], options(SEARCHES[1]), ["q"] * 4, [["ab", "c"]] * 4)
    assert all(one.text.startswith("q") and "ab" in one.text and "c" in one.text for one in with_word)
    assert with_word[0].signature.endswith("|prefix:yes|with:2")
    assert without[0].signature.endswith("|without:1")


def test_forbidden_texts_in_any_division_into_tokens() -> None:
    from insight.generation.constraints import ForbiddenTexts

    pieces = [b"", b"a", b"b", b"c", b"ab", b"bc", b"abc", b"xab", b"cd"]
    forbidden = ForbiddenTexts(("abc",), pieces)
    for history in ((), (1,), (2,), (4,), (1, 2), (7,), (3, 1), (1, 3)):
        before = b"".join(pieces[token] for token in history)
        expected = {token for token, piece in enumerate(pieces) if b"abc" in before + piece}
        assert set(forbidden.tokens_after(history)) == expected, history


def test_a_decoder_is_searched_alike() -> None:
    """Beams of several texts equal those of each alone, and greedy search takes the likeliest tokens."""
    config = DecoderConfig(32, 2, GroupedQueryAttention(4), max_sequence_length=40)
    built = build_shaken(config, 50, noise=0.3).float().eval()
    rows, limit = [[5, 6, 7], [8, 9, 10], [11, 12, 13]], Sentence(12)

    def found(chosen: list[list[int]], settings: SearchSettings) -> Any:
        with torch.inference_mode():
            return beam_search(DecoderScorer(built, chosen, 12, 50), [limit] * len(chosen), 0, settings)

    together = found(rows, SearchSettings(4, 4))
    for row, beams in zip(rows, together, strict=True):
        alone = found([row], SearchSettings(4, 4))[0]
        assert [one.token_ids for one in alone] == [one.token_ids for one in beams]
    greedy, ids = found(rows, SearchSettings(1))[0][0], list(rows[0])
    for token in greedy.token_ids:
        with torch.inference_mode():
            assert int(built.logits(built(torch.tensor([ids]))[0, -1]).argmax()) == token
        ids.append(token)
    with pytest.raises(ConfigError, match="different lengths"):
        DecoderScorer(built, [[1], [1, 2]], 3, 50)


def test_mistakes_are_named(model: Translator) -> None:
    search, many = SEARCHES[1], [["abcd", "efgh", "ijkl"]]
    for call, option in (
        (lambda: model.translate(["a"], options(SearchSettings(1000))), "beam_size"),
        (lambda: model.translate(["a"], options(search), ["p", "p"]), "prefixes"),
        (lambda: model.translate(["a"], options(search), must_contain=[]), "must_contain"),
        (lambda: model.translate(["a"], options(search), ["p" * 50]), "prefix"),
        (lambda: model.translate(["a"], options(search), must_contain=[["p" * 50]]), "must_contain"),
        (
            lambda: model.translate(["a"], options(search), must_contain=many),
            "must_contain",
        ),
        (lambda: model.translate(["a"], options(search, must_not_contain=("b",)), ["abc"]), "prefix"),
        (lambda: model.translate(["a"], options(SAMPLES), must_contain=[["b"]]), "must_contain"),
        (lambda: options(search, must_not_contain=("",)), "must_not_contain"),
        (lambda: options(search, batch_size=0), "batch_size"),
        (lambda: TranslationSettings(max_length_factor=math.nan), "max_length_factor"),
        (lambda: SearchSettings(2, sampling=Sampling(), stop=GNMTLength.published_stop), "stop"),
        (lambda: Sampling(temperature=0.0), "temperature"),
    ):
        with pytest.raises(ConfigError) as error:
            call()
        assert error.value.option == option, option


def test_a_long_source_is_cut_and_broken_weights_are_told() -> None:
    broken = Translator(network(), BYTES, BYTES)
    found = broken.translate(["a" * 100, "b", " "], options(SEARCHES[0]))
    assert [one.was_cut for one in found] == [True, False, False]
    assert found[0].num_source_tokens == 40
    assert (found[2].text, found[2].hypotheses) == ("", ())
    with torch.no_grad():
        next(broken.network.decoder.parameters()).fill_(math.nan)
    with pytest.raises(CheckpointError, match="not finite"):
        broken.translate(["a"], options(SEARCHES[1]))
