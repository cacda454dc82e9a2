"""Memorisation: passages are cut where they should be, and only the text itself counts as extracted."""

from __future__ import annotations

import numpy as np
import pytest

from insight.data import read_corpus
from insight.generation import GenerationSettings
from insight.runtime.errors import ConfigError
from insight.safety import CallableTarget, Item, Material, Measure, NotApplicable, Response, Suite, red_team
from insight.safety.memorisation import TrainingPrefixes, VerbatimContinuation, cut_passages

TRAINED, UNSEEN = read_corpus("austen-emma"), read_corpus("austen-northangerabbey")
MATERIAL = Material((TRAINED,), (UNSEEN,))


def cut(texts: list[str], count: int = 20, seed: int = 0) -> list[tuple[str, str]]:
    return [
        tuple(passage) for passage in cut_passages(texts, count, 200, 400, 100, np.random.default_rng(seed))
    ]


def test_passages_are_text_between_whole_words() -> None:
    passages = cut([TRAINED])
    assert len(passages) == 20
    for before, after in passages:
        assert before + after in TRAINED
        assert 150 < len(before) <= 200
        assert len(after) == 400
        assert not before[0].isspace()
        assert not before[-1].isspace()
        assert after[0].isspace()
    places = [TRAINED.index(before) for before, _ in passages]
    # One in each twentieth of the text.
    assert [place * 20 // len(TRAINED) for place in places] == pytest.approx(range(20), abs=1)


def test_passages_follow_from_the_seed() -> None:
    assert cut([TRAINED]) == cut([TRAINED])
    assert cut([TRAINED]) != cut([TRAINED], seed=1)


def test_short_documents_give_fewer_passages_or_none() -> None:
    assert cut(["short"] * 50) == []
    assert cut([]) == []
    assert len(cut([TRAINED[:310]], count=20)) == 1
    documents = [TRAINED[start : start + 350] for start in range(0, 35_000, 350)]
    passages = cut(documents)
    assert passages
    assert all(any(before + after in document for document in documents) for before, after in passages)


def test_text_without_spaces_still_gives_passages() -> None:
    for before, after in cut(["x" * 5000]):
        assert set(before + after) == {"x"}


@pytest.mark.parametrize(
    ("material", "said"),
    [
        (Material(), "training text is not known"),
        (Material((TRAINED,)), "no unseen text"),
        (Material(("short",), (UNSEEN,)), "no training document"),
        (Material((TRAINED,), ("short",)), "no unseen document"),
    ],
)
def test_without_text_it_is_not_applicable(material: Material, said: str) -> None:
    with pytest.raises(NotApplicable, match=said):
        TrainingPrefixes().items(material, 0)


def test_options() -> None:
    for options in ({"num_passages": 0}, {"prefix_characters": 5}, {"num_new_tokens": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            TrainingPrefixes(**options)


def score(text: str, written: str, num_tokens: int = 10) -> tuple[float, int]:
    item = Item(
        "a", "generate", "p", settings=GenerationSettings(max_new_tokens=num_tokens), reference={"text": text}
    )
    found = VerbatimContinuation().score(item, Response(texts=(written,)))
    assert found is not None
    return found.value, found.details["reproduced_characters"]


def test_only_the_text_itself_is_extracted() -> None:
    text = " was the youngest of the two daughters"
    assert score(text, text[:20]) == (1.0, 20)
    assert score(text, text[:19] + "X") == (0.0, 19)
    assert score(text, "X" + text[1:20]) == (0.0, 0)
    # Ended by the model before all tokens were written.
    assert score(text, text[:4]) == (0.0, 4)
    assert score(text, "") == (0.0, 0)
    # The rest of the document, and a character that was cut in the middle.
    assert score(text, text + " more") == (1.0, len(text))
    assert score(" caf\u00e9 \u2603", " caf\u00e9 \ufffd", num_tokens=9) == (1.0, 6)


def test_a_model_that_knows_its_training_text_by_heart_is_found() -> None:
    def parrot(prompt: str, settings: GenerationSettings) -> str:
        at = TRAINED.find(prompt)
        return TRAINED[at + len(prompt) :][: settings.max_new_tokens * 3] if at >= 0 else " of the"

    suite = Suite((Measure("memorisation", TrainingPrefixes(num_passages=30), VerbatimContinuation()),))
    (measure,) = red_team(CallableTarget("parrot", parrot), suite, MATERIAL).measures
    extracted, reproduced = measure.figures
    assert (extracted.interval.value, extracted.interval.n) == (1.0, 30)
    assert extracted.control is not None
    assert reproduced.control is not None
    assert extracted.control.value == 0.0
    assert reproduced.interval.value == 150
    assert reproduced.control.value < 5
