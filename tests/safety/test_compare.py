"""Two targets case by case: equal ones do not differ, a changed one does, strangers are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_models import BeginsWithDigit, Gap, Letters, Pairs, likelihood, toy_suite, toy_target, write

from insight.generation import GenerationSettings
from insight.runtime.errors import ConfigError, DataError
from insight.runtime.statistics import mcnemar_exact
from insight.safety import CallableTarget, Comparison, Measure, Suite, compare_results, read_results, red_team
from insight.safety.compare import SafetyGate, compare_folders
from insight.safety.targets import Target


def compared(
    folder: Path, first: Target, second: Target, suite: Suite | None = None
) -> dict[str, Comparison]:
    red_team(first, suite or toy_suite(), output=folder / "a")
    red_team(second, suite or toy_suite(), output=folder / "b")
    summary, before = read_results(folder / "a")
    comparisons = compare_results(summary, before, read_results(folder / "b")[1])
    return {comparison.measure: comparison for comparison in comparisons}


def riskier(prompt: str, settings: GenerationSettings) -> str:
    """Like ``write``, but two thirds of the probes begin with a digit whatever comes."""
    text = write(prompt, settings)
    return "1" + text[1:] if prompt.startswith("probe") and int(prompt.split()[1]) % 3 else text


def test_a_model_against_itself(tmp_path: Path) -> None:
    found = compared(tmp_path, toy_target(), toy_target())
    for comparison in found.values():
        assert comparison.verdict == "no difference shown"
        assert comparison.difference is not None
        assert (comparison.difference.low, comparison.difference.high) == (0.0, 0.0)
        assert comparison.num_equal == comparison.num_pairs
    assert found["letters"].p_value == 1.0
    assert found["pairs"].p_value == 1.0
    assert (found["letters"].test, found["pairs"].test) == ("McNemar, exact", "sign flips")
    assert (found["letters"].num_pairs, found["pairs"].num_pairs) == (40, 300)


def test_a_riskier_model_is_worse_and_seen_from_there_the_other_is_better(tmp_path: Path) -> None:
    changed = CallableTarget("changed", riskier, likelihood)
    there = compared(tmp_path / "there", toy_target(), changed)["letters"]
    back = compared(tmp_path / "back", changed, toy_target())["letters"]
    assert (there.verdict, back.verdict) == ("worse", "better")
    assert there.only_a == back.only_b == 0
    assert there.only_b == back.only_a
    assert there.p_value == back.p_value == mcnemar_exact(0, there.only_b or 0)
    assert there.difference is not None
    assert there.difference.value == pytest.approx((there.only_b or 0) / 40)


def test_a_few_small_differences_in_one_direction_are_no_evidence(tmp_path: Path) -> None:
    def nudged(prompt: str, continuation: str) -> float:
        shift = 0.5 if continuation == "yes" and int(prompt.split()[1]) < 5 else 0.0
        return likelihood(prompt, continuation) + shift

    pairs = Suite((Measure("pairs", Pairs(num_items=20), Gap()),))
    found = compared(tmp_path, toy_target(), CallableTarget("nudged", write, nudged), pairs)["pairs"]
    # The bootstrap interval of so few alone would say otherwise.
    assert found.difference is not None
    assert found.difference.low > 0
    assert found.p_value == 2 / 2**5
    assert found.verdict == "no difference shown"


def test_pairing_needs_equal_items(tmp_path: Path) -> None:
    red_team(toy_target(), toy_suite(), seed=0, output=tmp_path / "a")
    red_team(toy_target(), toy_suite(), seed=1, output=tmp_path / "b")
    summary, first = read_results(tmp_path / "a")
    with pytest.raises(DataError, match="share no item"):
        compare_results(summary, first, read_results(tmp_path / "b")[1])


def test_what_one_of_them_lacks_is_left_out_and_counted(tmp_path: Path) -> None:
    def sometimes(prompt: str, settings: GenerationSettings) -> str:
        if int(prompt.split()[1]) < 10:
            raise RuntimeError("no answer")
        return write(prompt, settings)

    found = compared(tmp_path, toy_target(), CallableTarget("sometimes", sometimes, likelihood))
    assert (found["letters"].num_pairs, found["letters"].num_left_out) == (30, 10)
    only_writes = compared(tmp_path / "other", toy_target(), CallableTarget("writes", write))
    assert only_writes["pairs"].verdict == "not comparable"


def test_the_record_is_plain_json(tmp_path: Path) -> None:
    red_team(toy_target(), toy_suite(), output=tmp_path / "a")
    record = compare_folders(tmp_path / "a", tmp_path / "a").to_record()
    again = json.loads(json.dumps(record, allow_nan=False))
    assert (again["a"], again["b"], len(again["comparisons"])) == ("toy", "toy", 2)


def test_folders_without_results(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no results"):
        read_results(tmp_path)
    (tmp_path / "summary.json").write_text("{}", encoding="utf-8")
    (tmp_path / "results.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        read_results(tmp_path)


def test_the_gate_passes_below_its_bound_and_never_what_was_not_measured() -> None:
    suite = toy_suite()
    results = red_team(toy_target(), suite)
    share = results.figures()["letters/rate"].interval.value
    assert SafetyGate({"letters/rate": share}, suite).failures(results) == []
    (failure,) = SafetyGate({"letters/rate": share - 0.01}, suite).failures(results)
    assert failure.startswith("letters/rate is")
    blind = red_team(CallableTarget("writes", write), suite)
    assert SafetyGate({"pairs/rate": 9.0}, suite).failures(blind) == ["pairs/rate could not be measured"]


def test_a_gate_that_cannot_work_is_refused() -> None:
    suite = Suite((Measure("letters", Letters(), BeginsWithDigit()), Measure("pairs", Pairs(), Gap())))
    with pytest.raises(ConfigError, match="did you mean 'letters/rate'"):
        SafetyGate({"leters/rate": 0.1}, suite)
    for bound in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match="must be a number, at least 0"):
            SafetyGate({"letters/rate": bound}, suite)
