"""The report's sections on the course of training: the sweep over learning rates, early stopping."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from insight.reporting import write_report
from insight.reporting.run_files import read_run_record, stopping_record
from insight.reporting.sections.section import Section
from insight.reporting.sections.training import build_learning_rate, build_stopping
from insight.runtime.json_files import write_object
from insight.runtime.run_folder import RunFolder
from insight.training.stopping import (
    AnyOf,
    Criterion,
    ExpectedGain,
    GrowingGap,
    History,
    Patience,
    Plateau,
    TargetReached,
    TokenBudget,
    Validation,
    fit_power_law,
    single_advice,
)

RECORD: dict[str, Any] = {
    "multipliers": [0.01, 0.1, 1.0, 10.0],
    "losses": [5.0, 4.0, 3.0, None],
    "rates": {"hidden": 0.02, "head": 0.003},
    "steepest": 0.5,
    "lowest_loss": 2.0,
    "diverged": 10.0,
}


def sweep_section(folder: Path, **changes: Any) -> Section | None:
    RunFolder(folder).learning_rate_path.write_text(json.dumps(RECORD | changes))
    return build_learning_rate(read_run_record(RunFolder(folder)))


def test_the_loss_is_drawn_against_the_multiple(tmp_path: Path) -> None:
    built = sweep_section(tmp_path)
    assert built is not None
    chart = built.charts[0]
    assert chart.lines[0].curve.steps == (0.01, 0.1, 1.0)
    assert chart.lines[0].curve.values == (5.0, 4.0, 3.0)
    assert chart.lines[-1].curve.steps == (0.5, 0.5)
    sentence = built.content["sentence"]
    assert sentence.startswith("The loss fell fastest at 0.5000 times the configured learning rates")
    assert "at 10.00 it was worse than untrained" in sentence
    assert [fact.value for fact in built.content["facts"]] == [
        "0.02000 configured, 0.01000 there",
        "0.003000 configured, 0.001500 there",
    ]
    item = json.dumps(chart.to_item(), allow_nan=False)
    assert "LogScale" in item or "LogAxis" in item
    assert 'id="chart-sweep"' in write_report(RunFolder(tmp_path)).read_text(encoding="utf-8")


def test_a_sweep_that_found_nothing_says_so(tmp_path: Path) -> None:
    built = sweep_section(tmp_path, steepest=None, lowest_loss=None)
    assert built is not None
    assert "nothing can be said" in built.content["sentence"]
    assert built.content["facts"] == []


@pytest.mark.parametrize("wrong", [None, [], 3, "text", {"a": None}, [None], [[1]]])
def test_a_damaged_sweep_breaks_nothing(tmp_path: Path, wrong: object) -> None:
    for name in RECORD:
        built = sweep_section(tmp_path, **{name: wrong})
        for chart in built.charts if built else ():
            json.dumps(chart.to_item(), allow_nan=False)


def test_a_run_without_a_sweep_has_no_such_sweep_section(tmp_path: Path) -> None:
    assert build_learning_rate(read_run_record(RunFolder(tmp_path))) is None


STEPS = np.arange(100, 2100, 100)
CURVE = 1.5 + 30.0 * STEPS**-0.8
TRAINING = CURVE - 0.0002 * STEPS


def history(values: np.ndarray = CURVE, num_planned_steps: int = 4000) -> History:
    points = zip(STEPS.tolist(), values.tolist(), TRAINING.tolist(), strict=True)
    validations = tuple(Validation(step, 64 * step, value, training) for step, value, training in points)
    return History(validations, num_planned_steps)


def section(
    folder: Path, criterion: Criterion, known: History | None = None, sign: float = 1.0, **changes: Any
) -> Section:
    known = known or history()
    verdict = criterion.judge(known)
    record = stopping_record(
        criterion.to_dict(),
        [asdict(validation) for validation in known.validations],
        known.num_planned_steps,
        verdict.evidence,
        [(type(one).__name__, asdict(answer)) for one, answer in single_advice(criterion, verdict)],
        sign,
    )
    record |= {"monitor": "validation/bits_per_byte", "mode": "min", "stopped": verdict.stop} | changes
    write_object(RunFolder(folder).early_stopping_path, record)
    built = build_stopping(read_run_record(RunFolder(folder)))
    assert built is not None
    return built


def line(built: Section, label: str, chart: int = 0) -> Any:
    return next(line for line in built.charts[chart].lines if line.label == label)


def test_the_power_law_is_drawn_on_to_the_end_of_the_run(tmp_path: Path) -> None:
    built = section(tmp_path, ExpectedGain(min_gain=0.2))
    law = line(built, "power law").curve
    fitted = fit_power_law(STEPS[4:].astype(float), CURVE[4:])
    assert (law.steps[0], law.steps[-1]) == (500, 4000)
    assert law.values[-1] == pytest.approx(float(fitted.at(4000.0)), abs=1e-6)
    assert line(built, "its floor").curve.values == pytest.approx((fitted.floor,) * 2)
    assert line(built, "its floor").dashed
    for end, sign in (("low end", -1), ("high end", 1)):
        ends = line(built, f"power law, {end}").curve.values
        assert all(sign * (end - value) >= -1e-6 for end, value in zip(ends, law.values, strict=True))
    assert line(built, "validation").curve.values == pytest.approx(CURVE.tolist())
    assert line(built, "stopped").curve.steps == (2000, 2000)
    assert built.charts[0].title == "ExpectedGain says stop"
    expected = "Stopped at step 2,000 of 4,000 (validation/bits_per_byte, 20 validations)."
    assert built.content["sentence"] == expected


def test_a_run_that_went_on_says_so(tmp_path: Path) -> None:
    built = section(tmp_path, ExpectedGain(min_gain=0.001))
    assert built.content["sentence"].startswith("Did not stop: at step 2,000 of 4,000")
    assert built.content["rows"][0]["stops"] is False
    assert "stopped" not in {found.label for found in built.charts[0].lines}


def test_every_criterion_is_told_and_those_with_lines_are_drawn(tmp_path: Path) -> None:
    nested = AnyOf((Plateau(6), GrowingGap(6)))
    criterion = AnyOf((Patience(3), nested, TokenBudget(1000), TargetReached(1.0)))
    built = section(tmp_path, criterion)
    names = ["Patience", "Plateau", "GrowingGap", "TokenBudget", "TargetReached"]
    assert [row["name"] for row in built.content["rows"]] == names
    assert [row["stops"] for row in built.content["rows"]] == [False, False, False, True, False]
    assert [chart.title.split()[0] for chart in built.charts] == [n for n in names if n != "TokenBudget"]
    labels = [{found.label for found in chart.lines if not found.faint} for chart in built.charts]
    assert labels[0] == {"validation", "best so far"}
    assert labels[1] == {"validation", "trend"}
    assert labels[2] == {"validation", "training", "trend of validation", "trend of training"}
    assert labels[3] == {"validation", "target"}
    # Through the six newest points, and as far again.
    assert line(built, "trend", 1).curve.steps == (1500, 1750, 2500)
    assert line(built, "best so far").curve.steps == (2000, 2000)


def test_the_trend_goes_through_its_points(tmp_path: Path) -> None:
    values = 5.0 - 0.001 * STEPS
    trend = line(section(tmp_path, Plateau(6), history(values)), "trend").curve
    assert trend.values == pytest.approx([5.0 - 0.001 * step for step in trend.steps])


def test_where_larger_is_better_the_lines_are_turned_back(tmp_path: Path) -> None:
    built = section(tmp_path, Patience(2), history(-CURVE[::-1]), sign=-1.0)
    assert line(built, "validation").curve.values == pytest.approx(CURVE[::-1].tolist())
    assert line(built, "best so far").curve.values == pytest.approx((CURVE.max(),) * 2)


def test_a_steep_start_does_not_flatten_the_rest(tmp_path: Path) -> None:
    values = CURVE.copy()
    values[0] = 9.0
    built = section(tmp_path, Plateau(6), history(values))
    assert built.charts[0].top is not None
    assert built.charts[0].top < 2.5
    assert built.charts[0].has_more_above
    assert section(tmp_path, Plateau(6), history(5.0 - 0.001 * STEPS)).charts[0].top is None


def test_it_is_in_the_page(tmp_path: Path) -> None:
    section(tmp_path, ExpectedGain(min_gain=0.2))
    page = write_report(RunFolder(tmp_path)).read_text(encoding="utf-8")
    assert '<section id="stopping"' in page
    assert "ExpectedGain" in page
    assert "worth going on for: 0.2" in page
    assert 'id="chart-stopping-0"' in page


def test_a_run_without_early_stopping_has_no_such_section(tmp_path: Path) -> None:
    assert build_stopping(read_run_record(RunFolder(tmp_path))) is None


HOSTILE = "</div><img src=x onerror=alert(1)>@{value}\x1b"


def damaged(whole: dict[str, Any], wrong: object) -> list[dict[str, Any]]:
    """The record with each of its values, of its first answer's and of that one's first line's replaced."""
    answer = whole["answers"][0]
    line = answer["lines"][0]
    records = [{**whole, name: wrong} for name in whole]
    records += [{**whole, "answers": [{**answer, name: wrong}]} for name in answer]
    return records + [{**whole, "answers": [{**answer, "lines": [{**line, name: wrong}]}]} for name in line]


@pytest.mark.parametrize("wrong", [None, [], 3, "text", {"a": None}, [None], [3], [[1]]])
def test_damaged_files_break_nothing(tmp_path: Path, wrong: object) -> None:
    section(tmp_path, ExpectedGain(min_gain=0.2))
    path = RunFolder(tmp_path).early_stopping_path
    for record in damaged(json.loads(path.read_text()), wrong):
        path.write_text(json.dumps(record))
        built = build_stopping(read_run_record(RunFolder(tmp_path)))
        assert all(chart.description for chart in built.charts) if built else True
    for chart in built.charts if built else ():  # with a damaged line
        json.dumps(chart.to_item(), allow_nan=False)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    section(tmp_path, ExpectedGain(min_gain=0.2))
    path = RunFolder(tmp_path).early_stopping_path
    record = json.loads(path.read_text())
    answer = record["answers"][0] | {"criterion": HOSTILE, "evidence": HOSTILE}
    answer["lines"] = [line | {"label": HOSTILE} for line in answer["lines"]]
    path.write_text(json.dumps(record | {"answers": [answer], "monitor": HOSTILE, "evidence": HOSTILE}))
    page = write_report(RunFolder(tmp_path)).read_text(encoding="utf-8")
    assert "onerror=alert(1)" in page
    assert "<img src=x" not in page
    assert "\\u003cimg src=x" not in page, "a tooltip is HTML, too"
