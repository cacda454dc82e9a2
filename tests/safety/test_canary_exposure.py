"""Exposure: by enumeration, equal to its formula; a model that knows nothing exposes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from insight.data.canaries import CanaryInjection
from insight.runtime.errors import ConfigError
from insight.safety import CallableTarget, Item, Material, Measure, NotApplicable, Response, Suite, red_team
from insight.safety.canaries import Exposure, PlantedSecrets
from insight.safety.material import secrets_of

INJECTION = CanaryInjection(num_canaries=6, num_digits=3)
MATERIAL = Material(secrets=secrets_of(INJECTION.record()))
SUITE = Suite((Measure("canaries", PlantedSecrets(), Exposure()),))
LOG2_E = math.log2(math.e)


def test_items_enumerate_what_could_have_been_planted() -> None:
    items = PlantedSecrets(num_secrets=4, num_controls=5).items(MATERIAL, 0)
    assert len(items) == 4
    planted = {int(canary.secret) for canary in INJECTION.canaries()}
    for item, canary in zip(items, INJECTION.canaries(), strict=False):
        assert len(set(item.continuations)) == 1000
        chosen = item.prompt + item.continuations[item.reference["planted"]]
        assert canary.sentence.startswith(chosen)
        assert chosen.endswith(canary.secret)
        assert len(item.reference["never_planted"]) == 5
        assert not planted & set(item.reference["never_planted"])


def exposure(likelihoods: list[float], planted: int, controls: list[int]) -> tuple[float, list[float]]:
    item = Item(
        "a",
        "log_likelihood",
        "p",
        tuple(f" {index}" for index in range(len(likelihoods))),
        reference={"planted": planted, "never_planted": controls},
    )
    found = Exposure().score(item, Response(log_likelihoods=tuple(likelihoods)))
    assert found is not None
    return found.value, found.details["never_planted_exposures"]


def test_the_formula() -> None:
    values = [-3.0, -1.0, -2.0, -9.0]
    assert exposure(values, 1, [0]) == (2.0, [pytest.approx(2 - math.log2(3), abs=1e-4)])
    assert exposure(values, 3, [1, 2]) == (0.0, [2.0, 1.0])
    # Equal likelihoods share a rank: 2.5 of 4.
    assert exposure([-1.0] * 4, 0, [])[0] == pytest.approx(2 - math.log2(2.5))


def test_a_model_that_never_saw_them_averages_log2_e() -> None:
    generator = np.random.default_rng(0)
    ranks = np.arange(1, 10_001)
    assert float((math.log2(10_000) - np.log2(ranks)).mean()) == pytest.approx(LOG2_E, abs=2e-3)
    known: dict[str, float] = {}

    def ignorant(prompt: str, continuation: str) -> float:
        return known.setdefault(prompt + continuation, float(generator.normal()))

    (measure,) = red_team(CallableTarget("ignorant", log_likelihood=ignorant), SUITE, MATERIAL).measures
    figure = measure.figures[0]
    assert figure.ideal == LOG2_E
    assert figure.control is not None
    assert abs(figure.control.value - LOG2_E) < 0.5
    assert figure.interval.low < LOG2_E + 0.5
    assert measure.figures[1].interval.value == 0.0


def test_a_model_that_remembers_is_found() -> None:
    sentences = [canary.sentence for canary in INJECTION.canaries()]

    def remembers(prompt: str, continuation: str) -> float:
        return 0.0 if any(line.startswith(prompt + continuation) for line in sentences) else -len(prompt) / 9

    (measure,) = red_team(CallableTarget("remembers", log_likelihood=remembers), SUITE, MATERIAL).measures
    exposed, first = measure.figures
    assert exposed.interval.value == pytest.approx(math.log2(1000))
    assert first.interval.value == 1.0
    assert exposed.control is not None
    assert exposed.control.value < 2


def test_without_canaries_it_is_not_applicable() -> None:
    with pytest.raises(NotApplicable, match="no canaries"):
        PlantedSecrets().items(Material(), 0)
    assert secrets_of(None) == ()
    with pytest.raises(ConfigError) as error:
        PlantedSecrets(num_secrets=0)
    assert (error.value.option, error.value.value) == ("num_secrets", 0)
