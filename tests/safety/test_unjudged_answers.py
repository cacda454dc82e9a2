"""What cannot be judged is no result: blank answers, broken judges, scores that are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from insight.generation import GenerationSettings
from insight.runtime.errors import ConfigError
from insight.runtime.statistics import Interval, wilson_interval
from insight.safety import (
    Attack,
    CallableTarget,
    ErrorRates,
    Evaluator,
    Item,
    Material,
    Measure,
    MeasureSummary,
    Response,
    Score,
    Suite,
    TextClassifier,
    red_team,
)
from insight.safety.injection import NonceWritten, OverrideInjection
from insight.safety.memorisation import TrainingPrefixes, VerbatimContinuation
from insight.safety.records import has_text
from insight.safety.toxicity import ToxicContinuation, ToxicityPrompts

TEXT = "The coach to the coast leaves at nine and the parcels are taken until eight of the evening. " * 8


def measured(answer: str, attack: Attack, evaluator: Evaluator) -> MeasureSummary:
    def write(prompt: str, settings: GenerationSettings) -> str:
        return answer

    suite = Suite((Measure("one", attack, evaluator, max_items=3),))
    material = Material((TEXT,), (TEXT.upper(),))
    results = red_team(CallableTarget("fixed", write), suite, material)
    assert results.num_measured == len(results.measures[0].figures[:1])
    return results.measures[0]


MEASURES = [
    (OverrideInjection(num_items=3), NonceWritten()),
    (TrainingPrefixes(num_passages=3, prefix_characters=20, num_new_tokens=4), VerbatimContinuation()),
    (ToxicityPrompts(num_samples=2), ToxicContinuation()),
]


@pytest.mark.parametrize("answer", ["", "\ufffd", "\ufffd\ufffd \ufffd\n", "\x00\u200b", " \n\t"])
@pytest.mark.parametrize(("attack", "evaluator"), MEASURES, ids=["injection", "memorisation", "toxicity"])
def test_answers_without_a_character_are_no_data(answer: str, attack: Attack, evaluator: Evaluator) -> None:
    found = measured(answer, attack, evaluator)
    assert (found.status, found.figures) == ("no data", ())
    assert found.reason


@pytest.mark.parametrize(("attack", "evaluator"), MEASURES, ids=["injection", "memorisation", "toxicity"])
def test_answers_with_words_are_judged(attack: Attack, evaluator: Evaluator) -> None:
    assert measured("A letter about \ufffd rain.", attack, evaluator).status == "measured"


def test_what_counts_as_text() -> None:
    assert all(map(has_text, ("a", "…", "漢\ufffd", " 1 ")))


@dataclass(frozen=True)
class Judge(TextClassifier):
    """Gives the same verdicts whatever it is asked."""

    found: tuple[float, ...]

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        return list(self.found)

    def error_rates(self) -> ErrorRates:
        return ErrorRates(wilson_interval(9, 10), wilson_interval(8, 10), 0.5, "nothing")


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ((0.5,), "1 verdicts for 2 texts"),
        ((0.5, 0.5, 0.5), "3 verdicts for 2 texts"),
        ((0.5, 7.0), "probability of 7"),
        ((-0.1, 0.5), "probability of -0.1"),
        ((0.5, float("nan")), "probability of nan"),
    ],
)
def test_a_broken_judge_is_named(verdicts: tuple[float, ...], said: str) -> None:
    found = measured("words", ToxicityPrompts(num_samples=2), ToxicContinuation(Judge(verdicts)))
    assert (found.status, found.figures) == ("no data", ())
    assert said in found.reason
    with pytest.raises(ConfigError):
        Judge(verdicts).verdicts(["a", "b"])


def test_error_rates_are_probabilities() -> None:
    with pytest.raises(ConfigError) as caught:
        ErrorRates(Interval(7.0, 6.0, 8.0, 3), wilson_interval(8, 10), 0.5, "nothing")
    assert (caught.value.option, caught.value.value) == ("sensitivity", 7.0)


@dataclass(frozen=True)
class SevenOfOne(Evaluator):
    """A yes-or-no evaluator that says neither."""

    def score(self, item: Item, response: Response) -> Score | None:
        return Score(7.0)


def test_a_yes_or_no_score_is_0_or_1() -> None:
    found = measured("words", OverrideInjection(num_items=3), SevenOfOne())
    assert found.status == "no data"
    assert "have to be 0 or 1" in found.reason
