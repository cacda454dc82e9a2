"""A callback that fails after training costs neither model nor report, but the exit code is not 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Outcome
from real_processes import PYTHON_INSIGHT, started

from insight.callbacks import QuantizeAtEnd, SafetyEvaluation
from insight.reporting import read_run_info
from insight.runtime.errors import DataError
from insight.runtime.run_folder import RunFolder

FIRST = {"class_path": "QuantizeAtEnd", "init_args": {"method": "int8_weight_only"}}
SECOND = {"class_path": "SafetyEvaluation", "init_args": {"every_n_validations": 9}}


OWN_CALLBACK = """\
from insight.callbacks.start_and_end import AfterTraining


class Planted(AfterTraining):
    noun = "planted"

    def work_on(self, checkpoint, trainer, module):
        raise RuntimeError("a planted fault")
"""
TWO_PROCESSES = {
    "devices": 2,
    "strategy": "ddp",
    "accelerator": "cpu",
    "max_steps": 1,
    "val_check_interval": 1,
}


def failing(error: Exception, done: list[str]) -> Callable[..., None]:
    def work_on(self: Any, *_: Any) -> None:
        done.append(self.noun)
        raise error

    return work_on


@pytest.mark.parametrize("names", ["QuantizeAtEnd", "QuantizeAtEnd and SafetyEvaluation"])
def test_the_run_is_complete_and_the_exit_code_is_1(
    insight: Callable[..., Outcome], workplace: Path, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    config, done = yaml.safe_load((workplace / "tiny.yaml").read_text(encoding="utf-8")), []
    config["trainer"] |= {"callbacks": [FIRST, SECOND], "max_steps": 2}
    (workplace / "tiny.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    monkeypatch.setattr(QuantizeAtEnd, "work_on", failing(DataError("no text", "give some"), done))
    if "Safety" in names:  # of any kind, also a mistake of the program
        monkeypatch.setattr(SafetyEvaluation, "work_on", failing(RuntimeError("planted"), done))
    else:
        monkeypatch.setattr(SafetyEvaluation, "work_on", lambda self, *_: done.append(self.noun))
    outcome = insight("fit", "--config", "tiny.yaml")
    run = RunFolder(workplace / "runs" / "tiny" / "1")
    assert outcome.code == 1
    assert outcome.error_line == (
        f"insight: error: after training, {names} failed: see above; the trained model and its report are "
        f"complete in {run.path.relative_to(workplace)}"
    )
    assert "quantization: no text: give some" in outcome.err
    assert ("safety: RuntimeError: planted" in outcome.err) == ("Safety" in names)
    assert done == ["quantization", "safety"]
    assert run.best_checkpoint
    assert run.last_checkpoint
    assert (run.path / "report.html").is_file()
    assert read_run_info(run.path / "run.json")["stop_reason"] == "all 2 steps done"
    assert str(run.path.relative_to(workplace) / "report.html") in outcome.out


def test_work_that_succeeds_ends_with_0(
    insight: Callable[..., Outcome], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load((workplace / "tiny.yaml").read_text(encoding="utf-8"))
    config["trainer"] |= {"callbacks": [FIRST], "max_steps": 2}
    (workplace / "tiny.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    monkeypatch.setattr(QuantizeAtEnd, "work_on", lambda *_: None)
    assert insight("fit", "--config", "tiny.yaml").code == 0


@pytest.mark.slow
def test_the_first_of_two_processes_fails_alone(workplace: Path) -> None:
    """Only the first process does such work; both leave, and the command says once what failed."""
    config = yaml.safe_load((workplace / "tiny.yaml").read_text(encoding="utf-8"))
    config["trainer"] |= {**TWO_PROCESSES, "callbacks": [{"class_path": "own.Planted"}]}
    (workplace / "tiny.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (workplace / "own.py").write_text(OWN_CALLBACK, encoding="utf-8")
    with started([*PYTHON_INSIGHT, "fit", "--config", "tiny.yaml"], workplace, "two") as running:
        outcome = running.wait()
    assert outcome.code == 1, outcome.err
    assert "training in 2 processes" in outcome.err
    assert outcome.err.count("planted: RuntimeError: a planted fault") == 1
    errors = [line for line in outcome.err.splitlines() if line.startswith("insight: error: ")]
    assert errors == [
        "insight: error: after training, Planted failed: see above; the trained model and its report are "
        "complete in runs/tiny/1"
    ]
    assert "Traceback" not in outcome.err
    assert (workplace / "runs/tiny/1/report.html").is_file()
    assert (workplace / "runs/tiny/1/checkpoints/best.ckpt").is_file()
