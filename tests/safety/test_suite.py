"""Suites: the shipped ones, those in files, and every way to get one wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_models import BeginsWithDigit, Letters

from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError
from insight.safety import Material, Measure, Suite, find_suite
from insight.safety.memorisation import TrainingPrefixes
from insight.safety.plan import make_plan
from insight.safety.registry import ATTACKS, EVALUATORS

NAMES = ["memorisation", "canaries", "bias", "injection", "toxicity"]


def test_shipped_suites_measure_the_same_things() -> None:
    base, watch = find_suite("base"), find_suite("watch")
    assert [measure.name for measure in base.measures] == NAMES
    assert [(m.name, m.attack, m.evaluator) for m in base.measures] == [
        (m.name, m.attack, m.evaluator) for m in watch.measures
    ]
    assert all(measure.max_items is None for measure in base.measures)


def test_every_builtin_name_loads() -> None:
    for registry in (ATTACKS, EVALUATORS):
        for name in registry.builtin:
            assert registry.base is not None
            assert issubclass(registry.load(name), registry.base), name


def test_only_and_options() -> None:
    suite = find_suite("base", ["toxicity", "bias"], {"num_samples": 3})
    assert [measure.name for measure in suite.measures] == ["bias", "toxicity"]
    assert suite.measures[1].attack.num_samples == 3  # type: ignore[attr-defined]


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "measures:\n"
        "  - {attack: {name: memorisation, num_passages: 7}, evaluator: verbatim}\n"
        "  - {name: again, attack: memorisation, evaluator: {name: verbatim}, max_items: 2}\n",
        encoding="utf-8",
    )
    suite = find_suite(str(path))
    assert suite.name == "mine"
    assert suite.measures[0].attack == TrainingPrefixes(num_passages=7)
    assert [(measure.name, measure.max_items) for measure in suite.measures] == [
        ("memorisation", None),
        ("again", 2),
    ]


def test_a_suite_travels_as_plain_values() -> None:
    suite = find_suite("watch")
    assert component_from_dict(suite.to_dict()) == suite


@pytest.mark.parametrize(
    ("measures", "said"),
    [
        ("[]", "suite 'mine' is empty"),
        ("[{attack: memorization, evaluator: verbatim}]", "did you mean 'memorisation'?"),
        ("[{attack: memorisation, evaluator: verbatin}]", "did you mean 'verbatim'?"),
        (
            "[{attack: {name: memorisation, num_passage: 3}, evaluator: verbatim}]",
            "did you mean 'num_passages'?",
        ),
        ("[{attack: {name: memorisation, num_passages: 0}, evaluator: verbatim}]", "num_passages=0"),
        ("[{attack: {name: toxicity, num_samples: 0}, evaluator: toxicity}]", "num_samples=0"),
        ("[{attack: {name: injection, num_items: 99}, evaluator: nonce}]", "num_items=99"),
        ("[{attack: memorisation}]", "evaluator is None"),
        ("[{attack: bias, evaluator: preference, max_items: 0}]", "max_items=0"),
        ("[{attack: bias, evaluater: preference}]", "did you mean 'evaluator'?"),
        (
            "[{attack: bias, evaluator: preference}, {attack: bias, evaluator: preference}]",
            "two measures 'bias'",
        ),
        ("[{name: a/b, attack: bias, evaluator: preference}]", "called 'a/b'"),
        ("nothing", "no list of measures"),
        ("[", "cannot be read"),
    ],
)
def test_wrong_files(tmp_path: Path, measures: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"measures: {measures}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        find_suite(str(path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bsae",), "did you mean 'base'?"),
        (("missing.yaml",), "cannot be read"),
        (("base", ["memorization"]), "did you mean 'memorisation'?"),
        (("base", ["bias"], {"num_samples": 3}), "no attack of the suite 'base' has an option 'num_samples'"),
        (("base", [], {"num_samples": 0}), "num_samples=0"),
    ],
)
def test_wrong_names(arguments: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_suite(*arguments)
    assert said in str(caught.value)


def test_at_most_so_many_items_of_each_role() -> None:
    suite = Suite((Measure("letters", Letters(num_items=10, num_samples=1), BeginsWithDigit(), max_items=3),))
    plan = make_plan(suite, Material(), ["generate"], 0)
    assert [planned.item.key for planned in plan.items] == [
        f"{role}/{index:02d}" for index in (0, 3, 6) for role in ("probe", "control")
    ]


def test_batches_hold_each_item_once_and_never_mix() -> None:
    plan = make_plan(find_suite("base"), Material(), ["generate", "log_likelihood"], 0)
    assert sorted(index for batch in plan.batches for index in batch) == list(range(len(plan.items)))
    for batch in plan.batches:
        chosen = [plan.items[index] for index in batch]
        assert len({(one.measure, one.item.capability) for one in chosen}) == 1
        texts = sum(one.item.num_samples for one in chosen if one.item.capability == "generate")
        assert texts <= 32
    assert set(plan.not_applicable) == {"memorisation", "canaries"}


def test_the_key_of_a_plan_is_its_content() -> None:
    def key(**options: Any) -> str:
        suite = Suite((Measure("letters", Letters(**options), BeginsWithDigit()),))
        return make_plan(suite, Material(), ["generate"], 0).key

    assert key() == key()
    assert len({key(), key(num_items=41), key(num_samples=4)}) == 3
