"""Beam search against enumeration of every hypothesis, and what a sentence's neighbours may not change."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from table_model import END, TableModel

from insight.generation.constraints import Required, Sentence
from insight.generation.scores import (
    CTranslate2Length,
    EnoughFinished,
    ExactStop,
    GNMTLength,
    LengthRule,
    MarianLength,
    MeanLogProbability,
)
from insight.generation.search import Hypothesis, SearchSettings, beam_search
from insight.runtime.errors import ConfigError


class WorkedExample(TableModel):
    """The example whose fifteen hypotheses can be written down: tokens end, a, b."""

    def table(self, seed: int, history: tuple[int, ...]) -> torch.Tensor:
        known = {(): (0.40, 0.35, 0.25), (1,): (0.05, 0.05, 0.90), (2,): (0.98, 0.01, 0.01)}
        return torch.tensor(known.get(history, (0.90, 0.05, 0.05)), dtype=torch.float64).log()


def every_hypothesis(
    model: TableModel, seed: int, max_length: int
) -> Iterator[tuple[tuple[int, ...], float, bool]]:
    """All hypotheses of at most ``max_length`` tokens: tokens, sum, and whether they ended by themselves."""
    others = [token for token in range(model.vocabulary_size) if token != END]
    for length in range(max_length + 1):
        for tokens in itertools.product(others, repeat=length):
            total = sum(float(model.table(seed, tokens[:place])[token]) for place, token in enumerate(tokens))
            if length < max_length:
                yield tokens, total + float(model.table(seed, tokens)[END]), True
            else:
                yield tokens, total, False


def enumerated(
    model: TableModel,
    seed: int,
    sentence: Sentence,
    rule: LengthRule,
    no_repeat: int = 0,
    coverage: float = 0.0,
) -> list[Hypothesis]:
    found = []
    for tokens, total, ended in every_hypothesis(model, seed, sentence.max_length):
        text = ",".join(map(str, tokens)) + ","
        has = [
            any(f",{','.join(map(str, spelling))}," in f",{text}" for spelling in required.spellings)
            for required in sentence.must_contain
        ]
        avoids = [f",{','.join(map(str, phrase))}," not in f",{text}" for phrase in sentence.must_not_contain]
        grams = (
            [tokens[start : start + no_repeat] for start in range(len(tokens) - no_repeat + 1)]
            if no_repeat
            else []
        )
        begins = (
            (*tokens, END)[: len(sentence.prefix)] == sentence.prefix
            if ended
            else (tokens[: len(sentence.prefix)] == sentence.prefix)
        )
        if not (all(has) and all(avoids) and begins and len(set(grams)) == len(grams)):
            continue
        score = rule.score(total, len(tokens) + (ended and rule.counts_end))
        if coverage:  # what was read until the last token was chosen
            score += coverage * model.read(seed, tokens if ended else tokens[:-1])
        found.append(Hypothesis(tokens, score, total, ended))
    return sorted(found, key=lambda hypothesis: -hypothesis.score)


RULES = [
    MeanLogProbability(0.0),
    MeanLogProbability(1.0),
    MeanLogProbability(2.5),
    GNMTLength(0.6),
    MarianLength(0.7, 0.3),
    CTranslate2Length(1.0),
]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(RULES),
    st.integers(2, 3),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.2, 5.0]),
)
def test_a_wide_beam_finds_what_enumeration_finds(
    seed: int, rule: LengthRule, size: int, length: int, coverage: float
) -> None:
    model = TableModel([seed], size)
    expected = enumerated(model, seed, Sentence(length), rule, coverage=coverage)
    num_best = min(4, len(expected))
    settings = SearchSettings(200, num_best, rule, ExactStop(), coverage_penalty=coverage)
    found = beam_search(model, [Sentence(length)], END, settings)[0]
    assert [one.token_ids for one in found] == [one.token_ids for one in expected[:num_best]]
    for one, other in zip(found, expected, strict=False):
        assert one.score == pytest.approx(other.score, abs=1e-12)
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-12)
        assert one.is_finished == other.is_finished


@pytest.mark.parametrize("fault", [None, "one token late", "left out"])
def test_another_coverage_would_be_noticed(fault: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin of the test above, with what each row has read."""
    expected = enumerated(TableModel([5], 3), 5, Sentence(4), MeanLogProbability(), coverage=0.2)[:4]
    read = TableModel.read
    if fault == "one token late":
        monkeypatch.setattr(TableModel, "read", lambda self, seed, past: read(self, seed, past[:-1]))
    penalty = 0.0 if fault == "left out" else 0.2
    settings = SearchSettings(200, 4, MeanLogProbability(), coverage_penalty=penalty)
    found = beam_search(TableModel([5], 3), [Sentence(4)], END, settings)[0]
    scores = [one.score for one in found]
    assert (scores == pytest.approx([one.score for one in expected], abs=1e-12)) is (fault is None)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.data())
def test_constraints_equal_enumeration(seed: int, data: st.DataObject) -> None:
    tokens = st.integers(1, 2)
    sentence = Sentence(
        4,
        prefix=tuple(data.draw(st.lists(tokens, max_size=2))),
        must_contain=tuple(
            Required(*map(tuple, spellings))
            for spellings in data.draw(
                st.lists(
                    st.lists(st.lists(tokens, min_size=1, max_size=2), min_size=1, max_size=2), max_size=2
                )
            )
        ),
        must_not_contain=tuple(
            map(tuple, data.draw(st.lists(st.lists(tokens, min_size=2, max_size=2), max_size=1)))
        ),
    )
    no_repeat = data.draw(st.sampled_from([0, 1, 2]))
    model = TableModel([seed], 3)
    expected = enumerated(model, seed, sentence, MeanLogProbability(), no_repeat)
    settings = SearchSettings(200, min(3, max(1, len(expected))), no_repeat_ngram=no_repeat)
    found = beam_search(model, [sentence], END, settings)[0]
    assert [one.token_ids for one in found] == [one.token_ids for one in expected[: settings.num_best]]


def test_the_worked_example() -> None:
    sentence = Sentence(4)
    by_sum = beam_search(
        WorkedExample([0], 3), [sentence], END, SearchSettings(15, 3, MeanLogProbability(0.0))
    )[0]
    assert [(one.token_ids, round(one.score, 4)) for one in by_sum] == [
        ((), -0.9163),
        ((1, 2), -1.2605),
        ((2,), -1.4065),
    ]
    by_mean = beam_search(
        WorkedExample([0], 3), [sentence], END, SearchSettings(15, 3, MeanLogProbability(1.0))
    )[0]
    assert [(one.token_ids, round(one.score, 4)) for one in by_mean] == [
        ((1, 2), -0.4202),
        ((2,), -0.7032),
        ((), -0.9163),
    ]
    gnmt = beam_search(
        WorkedExample([0], 3), [sentence], END, SearchSettings(15, 3, GNMTLength(0.6), ExactStop())
    )[0]
    assert [(one.token_ids, round(one.score, 4)) for one in gnmt] == [
        ((), -0.9163),
        ((1, 2), -1.0607),
        ((2,), -1.2822),
    ]


def test_greedy_takes_the_likeliest_token_each_time() -> None:
    model = TableModel([7], 5)
    found = beam_search(model, [Sentence(6)], END, SearchSettings(1))[0][0]
    history: tuple[int, ...] = ()
    while len(history) < 6:
        token = int(model.table(7, history).argmax())
        if token == END:
            break
        history = (*history, token)
    assert found.token_ids == history


@pytest.mark.parametrize("beam_size", [1, 3])
def test_neighbours_change_nothing(beam_size: int) -> None:
    """The same bits alone, in any batch and in any order, also beside much longer sentences."""
    options = SearchSettings(beam_size, 1)
    asked = [(seed, Sentence(2 + 3 * (seed % 4), prefix=(1,) * (seed % 2))) for seed in range(9)]
    alone = [beam_search(TableModel([seed], 6), [sentence], END, options)[0] for seed, sentence in asked]
    for order in (asked, asked[::-1], asked[4:] + asked[:4]):
        together = beam_search(
            TableModel([seed for seed, _ in order], 6), [sentence for _, sentence in order], END, options
        )
        assert together == [alone[asked.index(one)] for one in order]


def test_a_limit_taken_from_the_batch_would_be_noticed() -> None:
    """The twin of the test above: with the longest limit of the batch for all, texts do change."""
    options = SearchSettings(1)
    asked = [(seed, Sentence(2 + 3 * (seed % 4))) for seed in range(9)]
    alone = [beam_search(TableModel([seed], 6), [sentence], END, options)[0] for seed, sentence in asked]
    longest = max(sentence.max_length for _, sentence in asked)
    together = beam_search(
        TableModel([seed for seed, _ in asked], 6), [Sentence(longest)] * len(asked), END, options
    )
    assert together != alone


def test_equal_scores_are_ordered_by_the_lowest_token() -> None:
    class Flat(TableModel):
        def table(self, seed: int, history: tuple[int, ...]) -> torch.Tensor:
            return torch.full((7,), -math.log(7), dtype=torch.float64)

    found = beam_search(Flat([0], 7), [Sentence(2)], END, SearchSettings(3, 3, MeanLogProbability(0.0)))[0]
    assert [one.token_ids for one in found] == [(), (1,), (1, 1)]


def test_a_beam_wider_than_the_vocabulary_and_impossible_constraints() -> None:
    assert beam_search(TableModel([1], 2), [Sentence(3)], END, SearchSettings(50, 4))[0]
    impossible = Sentence(2, must_contain=(Required((1, 2, 1, 2)),))
    assert beam_search(TableModel([1], 3), [impossible], END, SearchSettings(5)) == [[]]


def test_patience_stops_earlier() -> None:
    exact = SearchSettings(4, 1, MeanLogProbability(2.0))
    patient = SearchSettings(4, 1, MeanLogProbability(2.0), stop=EnoughFinished(0.25))
    differ = 0
    for seed in range(30):
        one = beam_search(TableModel([seed], 4), [Sentence(8)], END, exact)[0][0]
        other = beam_search(TableModel([seed], 4), [Sentence(8)], END, patient)[0][0]
        assert one.score >= other.score - 1e-12
        differ += one != other
    assert differ


def test_signature_and_wrong_settings() -> None:
    gnmt = SearchSettings(5, 1, GNMTLength(0.6)).signature
    assert gnmt == "beam:5|score:sum/((5+L)/6)^0.6|end:yes|stop:pruned:3"
    patient = SearchSettings(4, stop=EnoughFinished(), no_repeat_ngram=3).signature
    assert patient.endswith("stop:finished:1x|norepeat:3")
    for options, name in (
        ({"beam_size": 0}, "beam_size"),
        ({"num_best": 9}, "num_best"),
        ({"coverage_penalty": -1.0}, "coverage_penalty"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram"),
    ):
        with pytest.raises(ConfigError) as error:
            SearchSettings(**options)
        assert error.value.option == name
    for value in (math.nan, math.inf, True):
        with pytest.raises(ConfigError) as error:
            MeanLogProbability(value)
        assert error.value.option == "power"
