"""One command line for the first start of a job and all later ones; exit codes that a script can read."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Outcome

from insight.cli.preemption import preemptible

Insight = Callable[..., Outcome]
JOB = ("fit", "--config", "tiny.yaml", "--run.test=false", "--resume", "auto_or_new")


def step_of(run: Path) -> int:
    return int(torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"])


@pytest.mark.slow
def test_the_same_command_begins_and_goes_on(insight: Insight, workplace: Path) -> None:
    """Each start is cut short by its time limit after one step, which is saved; the last one finishes."""
    limited = (*JOB, "--run.time_limit=00:01")  # this process is older than a second
    runs = workplace / "runs/tiny"
    first = insight(*limited)
    assert first.code == 143, first.err
    assert "no run of 'tiny' in runs to go on with" in first.err
    assert "the time limit: finishing this step" in first.err
    assert first.err.splitlines()[-1].endswith("go on with: insight fit --resume runs/tiny/1")
    assert step_of(runs / "1") == 1
    second = insight(*limited)
    assert second.code == 143, second.err
    assert step_of(runs / "1") == 2
    last = insight(*JOB, "--run.time_limit=null")
    assert last.code == 0, last.err
    assert step_of(runs / "1") == 4
    assert [path.name for path in runs.iterdir()] == ["1"]
    again = insight(*JOB, "--run.time_limit=null")
    assert again.code == 0, again.err
    assert "nothing is left to train" in again.err


def test_auto_alone_wants_a_run(insight: Insight, workplace: Path) -> None:
    outcome = insight(*JOB[:-1], "auto")
    assert outcome.code == 2
    assert "no run of 'tiny'" in outcome.error_line


def test_a_damaged_checkpoint_is_no_reason_to_begin_anew(insight: Insight, workplace: Path) -> None:
    assert insight(*JOB, "--trainer.max_steps=1").code == 0
    (workplace / "runs/tiny/1/checkpoints/last.ckpt").write_bytes(b"torn")
    for other in (workplace / "runs/tiny/1/checkpoints").glob("*.ckpt"):
        other.write_bytes(b"torn")
    outcome = insight(*JOB)
    assert outcome.code == 2, outcome.err
    assert [path.name for path in (workplace / "runs/tiny").iterdir()] == ["1"]


@pytest.mark.parametrize("limit", ["0", "an hour", "-5"])
def test_a_wrong_time_limit_is_one_line(insight: Insight, workplace: Path, limit: str) -> None:
    outcome = insight(*JOB, f"--run.time_limit={limit}")
    assert outcome.code == 2
    assert f"run.time_limit={limit}" in outcome.error_line
    assert not (workplace / "runs").exists()


def test_usr1_before_training_has_the_code_that_scripts_wait_for() -> None:
    handler = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(SystemExit) as caught, preemptible():
        signal.raise_signal(signal.SIGUSR1)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGUSR1) is handler
