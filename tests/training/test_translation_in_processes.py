"""Two processes train and score a translation model as one process does, whole or with sharded weights."""

from __future__ import annotations

from typing import Any

import pytest
from distributed_trainings import Scenario, launch, train

pytestmark = pytest.mark.slow

STEPS = 6
WHOLE = Scenario("pairs", translates=True, num_steps=STEPS)
WINDOWS = Scenario("windows", translates=True, num_steps=STEPS, accumulate=2)
SCENARIOS = [
    Scenario("ddp", "ddp", translates=True, num_steps=STEPS),
    Scenario("ddp-windows", "ddp", translates=True, num_steps=STEPS, accumulate=2),
    Scenario("fsdp2", "fsdp2", translates=True, num_steps=STEPS),
    Scenario("own divisor", "ddp", translates=True, num_steps=STEPS, fault="own divisor"),
    Scenario("mean of scores", "ddp", translates=True, num_steps=STEPS, fault="mean of scores"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("processes")
    single = {scenario.name: [train(folder, scenario)] for scenario in (WHOLE, WINDOWS)}
    return single | launch(folder, 2, SCENARIOS)


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "ddp-windows"])
def test_losses_and_scores_are_those_of_one_process(
    results: dict[str, list[dict[str, Any]]], name: str
) -> None:
    expected = results["windows" if name == "ddp-windows" else "pairs"][0]
    for found in results[name]:
        assert list(found["losses"].values()) == pytest.approx(list(expected["losses"].values()), rel=2e-4)
        assert list(found["norms"].values()) == pytest.approx(list(expected["norms"].values()), rel=2e-3)
        assert found["translations"] == expected["translations"]
        assert found["validated"].keys() == expected["validated"].keys()
        for step, metrics in expected["validated"].items():
            assert found["validated"][step] == pytest.approx(metrics, rel=1e-3)
        assert found["consumed"] == expected["consumed"]
        assert found["weight"] == pytest.approx(expected["weight"], rel=1e-4)
    assert any(expected["translations"])


def test_sharded_weights_are_parts_after_translating(results: dict[str, list[dict[str, Any]]]) -> None:
    held = [found["numbers_held"] for found in results["fsdp2"]]
    assert sum(held) == results["pairs"][0]["numbers_held"]
    assert max(held) < sum(held)


def test_a_scale_of_each_process_is_noticed(results: dict[str, list[dict[str, Any]]]) -> None:
    expected = list(results["pairs"][0]["losses"].values())
    assert list(results["own divisor"][0]["losses"].values()) != pytest.approx(expected, rel=2e-4)


def test_a_mean_of_scores_is_noticed(results: dict[str, list[dict[str, Any]]]) -> None:
    found, expected = (results[name][0]["validated"][str(STEPS)] for name in ("mean of scores", "pairs"))
    assert found["validation/loss"] == pytest.approx(expected["validation/loss"], rel=1e-3)
    assert found["validation/chrf"] != pytest.approx(expected["validation/chrf"], rel=1e-3)
