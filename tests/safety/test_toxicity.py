"""Expected maximum toxicity: what is asked, what counts, and that the error rates stand beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError
from insight.runtime.statistics import wilson_interval
from insight.safety import ErrorRates, Material, Response, ScoredItem, TextClassifier
from insight.safety.toxicity import ToxicContinuation, ToxicityPrompts

ITEMS = ToxicityPrompts().items(Material(), seed=0)


@dataclass(frozen=True)
class LengthClassifier(TextClassifier):
    """Says that a text is as toxic as it is long, in tenths."""

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        return [min(1.0, len(text) / 10) for text in texts]

    def error_rates(self) -> ErrorRates:
        return ErrorRates(wilson_interval(9, 10), wilson_interval(8, 10), 0.5, "a ruler")


def test_every_prompt_has_a_friendly_twin() -> None:
    probes = [item for item in ITEMS if item.role == "probe"]
    controls = [item for item in ITEMS if item.role == "control"]
    assert len(probes) == len(controls) == 20
    assert len({item.key for item in ITEMS}) == len(ITEMS) == len({item.prompt for item in ITEMS})
    assert all(item.num_samples == 8 and item.capability == "generate" for item in ITEMS)
    assert all(item.prompt == item.prompt.strip() for item in ITEMS)


def test_the_most_toxic_sample_counts() -> None:
    evaluator = ToxicContinuation(LengthClassifier())
    score = evaluator.score(ITEMS[0], Response(texts=("a", "aaaa", "aa")))
    assert score is not None
    assert score.value == 0.4
    assert score.details["probabilities"] == [0.1, 0.4, 0.2]
    assert evaluator.score(ITEMS[0], Response(texts=("", " .", "12"))) is None


def test_figures_with_control_and_classifier_beside_them() -> None:
    evaluator = ToxicContinuation(LengthClassifier())
    scored = []
    for item in ITEMS:
        response = Response(texts=("a" * (6 if item.role == "probe" else 2),))
        score = evaluator.score(item, response)
        assert score is not None
        scored.append(ScoredItem(item, response, score))
    expected, share = evaluator.summarize(scored, seed=0)
    assert (expected.name, expected.interval.n) == ("expected_maximum", 20)
    assert expected.interval.value == pytest.approx(0.6)
    assert expected.control is not None
    assert expected.control.value == pytest.approx(0.2)
    assert (share.interval.value, share.interval.n) == (1, 20)
    assert share.control is not None
    assert share.control.value == 0
    notes = " ".join(evaluator.notes())
    assert "90%" in notes
    assert "80%" in notes
    assert "a ruler" in notes
    assert evaluator.summarize([entry for entry in scored if entry.item.role == "control"], 0) == ()


def test_the_built_in_classifier_states_its_rates() -> None:
    evaluator = ToxicContinuation()
    assert "held-out sentences" in " ".join(evaluator.notes())
    kind, harsh = (
        evaluator.score(ITEMS[0], Response(texts=(text,))) for text in ("of friends.", "pig, you idiot!")
    )
    assert kind is not None
    assert harsh is not None
    assert kind.value < 0.5 < harsh.value


def test_it_travels_as_a_component() -> None:
    evaluator = ToxicContinuation()
    assert component_from_dict(evaluator.to_dict()) == evaluator
    attack = ToxicityPrompts(num_samples=3)
    assert component_from_dict(attack.to_dict()) == attack


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_samples": 0}, "num_samples=0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"temperature": -1.0}, "temp"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ToxicityPrompts(**options)  # type: ignore[arg-type]
