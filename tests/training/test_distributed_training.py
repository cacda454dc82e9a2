"""Several processes train as one would, however weights are spread over them, and go on from each other's
checkpoints; and the proof would notice if it were not so."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_trainings import (
    FEWER_STEPS,
    GLOBAL_BATCH_SIZE,
    NUM_STEPS,
    SAVED_STEP,
    Scenario,
    launch,
    train,
)

pytestmark = pytest.mark.slow

Result = dict[str, Any]
CASES: dict[str, dict[str, Any]] = {
    f"{optimizer} {accumulate} {'packed' if packed else 'padded'}": {
        "optimizer": optimizer,
        "accumulate": accumulate,
        "packed": packed,
    }
    for optimizer, accumulate, packed in itertools.product(("adamw", "muon"), (1, 2), (False, True))
}
# Saved inside an accumulation window.
SAVED = {
    "adamw": CASES["adamw 2 padded"],
    "muon": CASES["muon 2 packed"],
    "averaged": {"averages": True, "accumulate": 2},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "by value": {"clip": "value"},
    "tied": {"network": "tied", "optimizer": "muon"},
    "recomputing": {"network": "recomputing", "accumulate": 2},
    "frozen": {"freeze": ("embedding", "blocks.0.*", "norm"), "optimizer": "muon"},
    "biased": {"network": "biased", "optimizer": "muon"},
}
# Nothing that processes could share.
UNSHARED: dict[str, dict[str, Any]] = {
    "experts": {"network": "experts", "packed": True},
    "linear": {"network": "linear", "packed": True},
}
# Two processes go on from what these have saved.
RESUMED = [
    ("fsdp2", "alone adamw", "adamw"),
    ("fsdp2", "alone muon", "muon"),
    ("fsdp2", "four", "adamw"),
    ("fsdp2", "tensor muon", "muon"),
    ("fsdp2", "alone averaged", "averaged"),
    ("tensor", "fsdp2 averaged", "averaged"),
    ("tensor", "alone muon", "muon"),
    ("tensor", "fsdp2 adamw", "adamw"),
    ("ddp", "fsdp2 muon", "muon"),
]
# What is planted, and what it must change.
FAULTS = {
    ("ddp", "local counts"): "losses",
    ("fsdp2", "local counts"): "losses",
    ("ddp", "same rows"): "losses",
    ("fsdp2", "same rows"): "losses",
    ("fsdp2", "no values"): "losses",
    ("fsdp2", "local norm"): "norms",
    ("fsdp2", "repeated tail"): "num_bytes",
    ("tensor", "rows as they lie"): "losses",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Result]:
    """What one process does."""
    scenarios = {name: long(f"alone {name}", "auto", name) for name in CASES}
    cases = {**VARIANTS, **UNSHARED, "plain": {}, "biased adamw": {"network": "biased"}}
    scenarios |= {name: Scenario(f"alone {name}", **case) for name, case in cases.items()}
    for optimizer, case in SAVED.items():
        scenarios[f"{optimizer} saved"] = Scenario(f"alone {optimizer}", saves=True, **case)
    return {name: train(folder, scenario) for name, scenario in scenarios.items()}


@pytest.fixture(scope="module")
def four(folder: Path) -> dict[str, list[Result]]:
    """Four processes, from the start."""
    scenarios = [
        Scenario("four", strategy="ddp", saves=True, **SAVED["adamw"]),
        Scenario("two by two", strategy="tensor", saves=True, **SAVED["muon"]),
    ]
    return launch(folder, 4, scenarios)


@pytest.fixture(scope="module")
def two(folder: Path, alone: dict[str, Result], four: dict[str, list[Result]]) -> dict[str, list[Result]]:
    """Two processes: from the start, from the checkpoints of others, and with planted faults."""
    scenarios = [
        long(f"{strategy} {name}", strategy, name) for strategy in ("ddp", "fsdp2") for name in CASES
    ]
    scenarios += [
        Scenario(f"{strategy} {name}", strategy=strategy, **case)
        for strategy in ("fsdp2", "tensor")
        for name, case in VARIANTS.items()
    ]
    scenarios += [Scenario(f"fsdp2 {name}", strategy="fsdp2", **case) for name, case in UNSHARED.items()]
    scenarios += [
        Scenario(f"{strategy} {optimizer}", strategy=strategy, saves=True, **case)
        for strategy in ("fsdp2", "tensor")
        for optimizer, case in SAVED.items()
    ]
    for strategy, name, optimizer in RESUMED:
        scenarios.append(resumed(folder, strategy, name, optimizer))
    scenarios.append(resumed(folder, "fsdp2", "alone adamw", "adamw", fault="no optimizer state"))
    scenarios += [
        Scenario(f"{strategy} {fault}", strategy=strategy, fault=fault) for strategy, fault in FAULTS
    ]
    scenarios += [
        Scenario(f"bfloat16 {kind}", strategy="fsdp2", precision="bf16-mixed", network=kind)
        for kind in ("plain", "biased")
    ]
    return launch(folder, 2, scenarios)


def long(name: str, strategy: str, case: str) -> Scenario:
    """One of ``CASES``, which are trained for longer than the others."""
    return Scenario(name, strategy=strategy, num_steps=NUM_STEPS, **CASES[case])


def resumed(folder: Path, strategy: str, name: str, optimizer: str, fault: str | None = None) -> Scenario:
    """Goes on from a checkpoint in another world."""
    of = f"{strategy} from {name}{f' {fault}' if fault else ''}"
    path = str(folder / f"{name}.ckpt")
    return Scenario(of, strategy=strategy, resume=path, fault=fault, **SAVED[optimizer])


def differences(one: Result, several: list[Result]) -> list[str]:
    """In what several processes differ from one, over the steps that they did."""
    first = several[0]
    steps = list(first["losses"])
    begun, last = int(steps[0]), list(one["losses"])[-1]
    # Whoever validates at a step has done it: a run that does not validate is no run that agrees.
    expected: Any = {
        name: {step: value for step, value in one[name].items() if int(step) >= begun}
        for name in ("losses", "norms", "validated", "num_bytes")
    }
    counted = [each["num_bytes"] for each in several if each["num_bytes"] is not None]
    bytes_of_all = {step: sum(counts.get(step, 0) for counts in counted) for step in set().union(*counted)}
    close = {
        "steps": all(list(each["losses"]) == steps for each in several) and steps[-1] == last,
        "losses": all(each["losses"] == pytest.approx(expected["losses"], abs=1e-5) for each in several),
        "norms": all(each["norms"] == pytest.approx(expected["norms"], rel=1e-4) for each in several),
        "validated": all(_agree(each["validated"], expected["validated"]) for each in several),
        "num_bytes": bytes_of_all == expected["num_bytes"],
        "consumed": first["consumed"] == one["consumed"],
        "weight": first["weight"] == pytest.approx(one["weight"], rel=1e-6),
    }
    return [name for name, is_close in close.items() if not is_close]


def _agree(validated: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether the same steps were validated, at least one, with the same metrics."""
    return (
        bool(expected)
        and validated.keys() == expected.keys()
        and all(metrics == pytest.approx(expected[step], rel=1e-5) for step, metrics in validated.items())
    )


def test_one_process_did_what_is_compared(alone: dict[str, Result]) -> None:
    saved = {f"{optimizer} saved": case for optimizer, case in SAVED.items()}
    for name, case in {**CASES, **VARIANTS, **UNSHARED, **saved, "plain": {}}.items():
        result = alone[name]
        num_steps = NUM_STEPS if name in CASES else FEWER_STEPS
        losses = list(result["losses"].values())
        assert len(losses) == num_steps
        assert losses[-1] < losses[0] - 0.5
        assert result["consumed"] <= GLOBAL_BATCH_SIZE * num_steps * case.get("accumulate", 1)
        assert max(result["norms"].values()) > 0.5  # which is where they are clipped
        validated = {str(num_steps * third // 3) for third in (1, 2, 3)}
        assert result["num_bytes"].keys() == result["validated"].keys() == validated


def resumed_of(whole: Result) -> Result:
    """What a run that goes on from the saved step would tell."""
    late = {
        name: {step: value for step, value in whole[name].items() if int(step) > SAVED_STEP}
        for name in ("losses", "norms", "validated", "num_bytes")
    }
    return {**whole, **late}


@pytest.mark.parametrize(
    ("name", "step", "noticed"),
    [
        ("validated", None, "validated"),
        ("validated", "10", "validated"),
        ("num_bytes", None, "num_bytes"),
        ("norms", "10", "norms"),
        ("losses", "10", "losses"),
    ],
)
def test_what_a_process_leaves_out_is_noticed(
    alone: dict[str, Result], name: str, step: str | None, noticed: str
) -> None:
    """On the second process of two that agree in all else; ``None`` leaves out every step."""
    whole = alone["adamw saved"]
    first = resumed_of(whole)
    second = {**first, "num_bytes": None}
    assert differences(whole, [first, second]) == []
    kept = {} if step is None else {each: value for each, value in first[name].items() if each != step}
    if name == "num_bytes":
        assert noticed in differences(whole, [{**first, name: kept}, second])
    else:
        assert noticed in differences(whole, [first, {**second, name: kept}])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_equal_one(
    alone: dict[str, Result], two: dict[str, list[Result]], strategy: str, name: str
) -> None:
    assert differences(alone[name], two[f"{strategy} {name}"]) == []


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("strategy", ["fsdp2", "tensor"])
def test_variants_of_two_processes_equal_one(
    alone: dict[str, Result], two: dict[str, list[Result]], strategy: str, name: str
) -> None:
    assert differences(alone[name], two[f"{strategy} {name}"]) == []


@pytest.mark.parametrize("name", UNSHARED)
def test_other_networks_of_two_processes_equal_one(
    alone: dict[str, Result], two: dict[str, list[Result]], name: str
) -> None:
    assert differences(alone[name], two[f"fsdp2 {name}"]) == []


@pytest.mark.parametrize("optimizer", SAVED)
def test_processes_that_share_matrices_equal_one(
    alone: dict[str, Result], two: dict[str, list[Result]], optimizer: str
) -> None:
    assert differences(alone[f"{optimizer} saved"], two[f"tensor {optimizer}"]) == []


@pytest.mark.parametrize(("name", "optimizer"), [("four", "adamw"), ("two by two", "muon")])
def test_four_processes_equal_one(
    alone: dict[str, Result], four: dict[str, list[Result]], name: str, optimizer: str
) -> None:
    assert differences(alone[f"{optimizer} saved"], four[name]) == []


def test_each_process_holds_its_part_only(alone: dict[str, Result], two: dict[str, list[Result]]) -> None:
    whole = alone["adamw 1 padded"]["numbers_held"]
    sharded = [result["numbers_held"] for result in two["fsdp2 adamw 1 padded"]]
    assert sum(sharded) == whole
    assert max(sharded) < 0.51 * whole
    shared = [result["numbers_held"] for result in two["tensor adamw"]]
    assert 0.5 * whole < max(shared) < whole


@pytest.mark.parametrize(("strategy", "fault"), FAULTS)
def test_a_planted_fault_is_noticed(
    alone: dict[str, Result], two: dict[str, list[Result]], strategy: str, fault: str
) -> None:
    assert FAULTS[strategy, fault] in differences(alone["plain"], two[f"{strategy} {fault}"])


@pytest.mark.parametrize(("kind", "same"), [("plain", "plain"), ("biased", "biased adamw")])
def test_mixed_precision_stays_near(
    alone: dict[str, Result], two: dict[str, list[Result]], kind: str, same: str
) -> None:
    narrow, wide = two[f"bfloat16 {kind}"][0]["losses"], alone[same]["losses"]
    assert list(narrow) == list(wide)
    assert narrow == pytest.approx(wide, abs=0.1)
    assert narrow != pytest.approx(wide, abs=1e-5)


@pytest.mark.parametrize(("strategy", "origin", "optimizer"), RESUMED)
def test_two_processes_go_on_from_any_checkpoint(
    alone: dict[str, Result], two: dict[str, list[Result]], strategy: str, origin: str, optimizer: str
) -> None:
    result = two[f"{strategy} from {origin}"]
    assert len(result[0]["losses"]) == FEWER_STEPS - SAVED_STEP, "a resume that trains nothing proves nothing"
    assert differences(alone[f"{optimizer} saved"], result) == []


def test_four_processes_go_on_from_fewer(
    folder: Path, alone: dict[str, Result], two: dict[str, list[Result]]
) -> None:
    scenarios = {
        "adamw": resumed(folder, "ddp", "fsdp2 adamw", "adamw"),
        "muon": resumed(folder, "tensor", "alone muon", "muon"),
    }
    results = launch(folder, 4, list(scenarios.values()))
    for optimizer, scenario in scenarios.items():
        result = results[scenario.name]
        assert len(result[0]["losses"]) == FEWER_STEPS - SAVED_STEP
        assert differences(alone[f"{optimizer} saved"], result) == []


@pytest.mark.parametrize(
    ("origin", "optimizer"),
    [
        ("fsdp2 adamw", "adamw"),
        ("fsdp2 muon", "muon"),
        ("tensor muon", "muon"),
        ("four", "adamw"),
        ("two by two", "muon"),
        ("fsdp2 averaged", "averaged"),
    ],
)
def test_one_process_goes_on_from_any_checkpoint(
    folder: Path, alone: dict[str, Result], two: dict[str, list[Result]], origin: str, optimizer: str
) -> None:
    result = train(folder, resumed(folder, "auto", origin, optimizer))
    assert len(result["losses"]) == FEWER_STEPS - SAVED_STEP
    assert differences(alone[f"{optimizer} saved"], [result]) == []


def test_a_lost_optimizer_state_is_noticed(alone: dict[str, Result], two: dict[str, list[Result]]) -> None:
    result = two["fsdp2 from alone adamw no optimizer state"]
    assert "losses" in differences(alone["adamw saved"], result)


def test_an_open_window_of_another_world_is_noticed(
    folder: Path, alone: dict[str, Result], two: dict[str, list[Result]]
) -> None:
    """Two processes had averaged their gradients; taken as the sum of one they are half of it."""
    result = train(folder, resumed(folder, "auto", "fsdp2 adamw", "adamw", fault="other world"))
    assert "losses" in differences(alone["adamw saved"], [result])


def test_the_file_of_two_processes_is_that_of_one(
    folder: Path, alone: dict[str, Result], two: dict[str, list[Result]]
) -> None:
    one, several = (
        torch.load(folder / f"{world} muon.ckpt", weights_only=True) for world in ("alone", "fsdp2")
    )
    assert several.keys() == one.keys()
    assert list(several["state_dict"]) == list(one["state_dict"])
    kept, expected = several["optimizer_states"][0], one["optimizer_states"][0]
    assert kept["param_groups"] == expected["param_groups"]
    assert kept["state"].keys() == expected["state"].keys()
    for number, state in expected["state"].items():
        for name, value in state.items():
            same = kept["state"][number][name]
            assert type(same) is type(value)
            assert same.shape == value.shape
            assert math.isclose(float(same.norm()), float(value.norm()), rel_tol=1e-3)
