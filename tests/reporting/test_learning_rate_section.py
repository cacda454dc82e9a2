"""The report's section on a sweep over learning rates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from insight.reporting import write_report
from insight.reporting.run_record import read_run_record
from insight.reporting.sections.learning_rate import build_learning_rate
from insight.reporting.sections.section import Section
from insight.runtime.run_folder import RunFolder

RECORD: dict[str, Any] = {
    "multipliers": [0.01, 0.1, 1.0, 10.0],
    "losses": [5.0, 4.0, 3.0, None],
    "rates": {"hidden": 0.02, "head": 0.003},
    "steepest": 0.5,
    "lowest_loss": 2.0,
    "diverged": 10.0,
}


def section(folder: Path, **changes: Any) -> Section | None:
    RunFolder(folder).learning_rate_path.write_text(json.dumps(RECORD | changes))
    return build_learning_rate(read_run_record(RunFolder(folder)))


def test_the_loss_is_drawn_against_the_multiple(tmp_path: Path) -> None:
    built = section(tmp_path)
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
    built = section(tmp_path, steepest=None, lowest_loss=None)
    assert built is not None
    assert "nothing can be said" in built.content["sentence"]
    assert built.content["facts"] == []


@pytest.mark.parametrize("wrong", [None, [], 3, "text", {"a": None}, [None], [[1]]])
def test_damaged_files_break_nothing(tmp_path: Path, wrong: object) -> None:
    for name in RECORD:
        built = section(tmp_path, **{name: wrong})
        for chart in built.charts if built else ():
            json.dumps(chart.to_item(), allow_nan=False)


def test_a_run_without_a_sweep_has_no_such_section(tmp_path: Path) -> None:
    assert build_learning_rate(read_run_record(RunFolder(tmp_path))) is None
