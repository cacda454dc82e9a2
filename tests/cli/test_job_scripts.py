"""One command line for the first start of a job and all later ones; exit codes that a script can read."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from command_line import Outcome

from insight.runtime.launching.launch import preemptible

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


@pytest.mark.slow
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


@pytest.mark.slow
def test_one_of_two_processes_is_told_and_the_same_command_goes_on(workplace: Path) -> None:
    """As a scheduler that signals one process only: both end after one step, the command's code is 143."""
    two = ("--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu")
    command = [sys.executable, "-m", "insight", *JOB, *two, "--model.schedule=Constant"]
    last = workplace / "runs/tiny/1/checkpoints/last.ckpt"
    job = subprocess.Popen([*command, "--trainer.max_steps=1000000"], stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 240
        while not last.is_file():
            assert job.poll() is None
            assert time.monotonic() < end, "no checkpoint"
            time.sleep(0.1)
        (second,) = [
            child for child in psutil.Process(job.pid).children() if "insight" in " ".join(child.cmdline())
        ]
        second.send_signal(signal.SIGUSR1)
        err = job.communicate(timeout=120)[1]
    finally:
        for process in (*psutil.Process(job.pid).children(), job) if job.poll() is None else ():
            process.kill()
    assert job.returncode == 143, err
    step = step_of(last.parents[1])
    assert f"interrupted by SIGUSR1 at step {step}; go on with" in err.splitlines()[-1]
    done = subprocess.run(
        [*command, f"--trainer.max_steps={step + 2}"], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert step_of(last.parents[1]) == step + 2
