"""Two processes train and score a translation model as one process does, whole or with sharded weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from distributed_trainings import HANGING, SAVED_STEP, Scenario, launch, train
from tiny_translation_training import NUM_VALIDATION_PAIRS

pytestmark = pytest.mark.slow

STEPS = 6
SCORES = ("validation/bleu", "validation/chrf", "validation/ter")
WHOLE = Scenario("pairs", translates=True, num_steps=STEPS)
WINDOWS = Scenario("windows", translates=True, num_steps=STEPS, accumulate=2)
ONE = Scenario("one sentence", translates=True, num_steps=3, num_translated=1)
SAVING = Scenario("saving", translates=True, num_steps=2 * SAVED_STEP, saves=True)
SCENARIOS = [
    Scenario("ddp", "ddp", translates=True, num_steps=STEPS),
    Scenario("ddp-windows", "ddp", translates=True, num_steps=STEPS, accumulate=2),
    Scenario("fsdp2", "fsdp2", translates=True, num_steps=STEPS),
    Scenario("ddp-one", "ddp", translates=True, num_steps=3, num_translated=1),
    Scenario("fsdp2-one", "fsdp2", translates=True, num_steps=3, num_translated=1),
    *(
        Scenario(fault, "ddp", translates=True, num_steps=STEPS, fault=fault)
        for fault in ("own divisor", "mean of scores", "equal shares", "one share after the other")
    ),
]


Results = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("processes")
    single = {scenario.name: [train(folder, scenario)] for scenario in (WHOLE, WINDOWS, ONE, SAVING)}
    saved = str(folder / "saving.ckpt")
    resumed = [
        dataclasses.replace(SAVING, name=f"resumed {strategy}", strategy=strategy, saves=False, resume=saved)
        for strategy in ("ddp", "fsdp2")
    ]
    return single | launch(folder, 2, [*SCENARIOS, *resumed])


def scores_of(found: dict[str, Any]) -> dict[str, list[float]]:
    """The scores of every validation, by its step."""
    return {step: [metrics[name] for name in SCORES] for step, metrics in found["validated"].items()}


@pytest.mark.parametrize(
    ("name", "of_one"),
    [
        ("ddp", "pairs"),
        ("fsdp2", "pairs"),
        ("ddp-windows", "windows"),
        ("ddp-one", "one sentence"),
        ("fsdp2-one", "one sentence"),
    ],
)
def test_losses_and_scores_are_those_of_one_process(results: Results, name: str, of_one: str) -> None:
    """With one sentence, the second process has none to translate."""
    expected = results[of_one][0]
    for found in results[name]:
        assert list(found["losses"].values()) == pytest.approx(list(expected["losses"].values()), rel=2e-4)
        assert list(found["norms"].values()) == pytest.approx(list(expected["norms"].values()), rel=2e-3)
        assert found["translations"] == expected["translations"]
        assert scores_of(found) == scores_of(expected)
        for step, metrics in expected["validated"].items():
            assert found["validated"][step] == pytest.approx(metrics, rel=1e-3)
        assert found["consumed"] == expected["consumed"]
        assert found["weight"] == pytest.approx(expected["weight"], rel=1e-4)
    assert any(expected["translations"])
    assert len(expected["translations"]) == (1 if of_one == "one sentence" else NUM_VALIDATION_PAIRS)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_go_on_with_the_run_of_one(results: Results, strategy: str) -> None:
    """In the middle of an epoch, with the same batches; those of its beginning would give other losses."""
    whole = results["saving"][0]
    expected = [whole["losses"][str(step)] for step in range(SAVED_STEP + 1, 2 * SAVED_STEP + 1)]
    for found in results[f"resumed {strategy}"]:
        losses = list(found["losses"].values())
        assert losses == pytest.approx(expected, rel=1e-3)
        assert losses != pytest.approx(list(whole["losses"].values())[:SAVED_STEP], rel=1e-3)
        assert found["consumed"] == whole["consumed"]
        assert found["translations"] == whole["translations"]


def test_the_sentences_cannot_be_shared_evenly() -> None:
    assert NUM_VALIDATION_PAIRS % 2 == 1


def test_sharded_weights_are_parts_after_translating(results: Results) -> None:
    held = [found["numbers_held"] for found in results["fsdp2"]]
    assert sum(held) == results["pairs"][0]["numbers_held"]
    assert max(held) < sum(held)


def test_a_scale_of_each_process_is_noticed(results: Results) -> None:
    expected = list(results["pairs"][0]["losses"].values())
    assert list(results["own divisor"][0]["losses"].values()) != pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("fault", HANGING)
def test_processes_that_miss_one_another_are_noticed(fault: str, tmp_path: Path) -> None:
    """One of them has no sentence, and must neither take part in the other's nor fall behind afterwards."""
    waiting = Scenario(fault, "fsdp2", translates=True, num_steps=3, num_translated=1, fault=fault)
    with pytest.raises(AssertionError, match=r"(?i)timed out|collective mismatch"):
        launch(tmp_path, 2, [waiting])


@pytest.mark.parametrize("fault", ["mean of scores", "equal shares", "one share after the other"])
def test_scores_that_are_not_of_all_sentences_are_noticed(results: Results, fault: str) -> None:
    found, expected = results[fault][0], results["pairs"][0]
    assert list(found["losses"].values()) == pytest.approx(list(expected["losses"].values()), rel=2e-4)
    assert scores_of(found)[str(STEPS)] != scores_of(expected)[str(STEPS)]
