"""Trainings that are killed at random moments and resumed end in the same bits, or it would be noticed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUNS = Path(__file__).with_name("chaos_runs.py")
PLANS = {
    "one process": "one process:18:1:none",
    "two processes": "two processes:12:2:none",
    "two cut processes": "two cut processes:6:2:none:fsdp2",
    "in place": "in place:20:1:in place",
    "random state": "random state:3:1:random state",
    "full disk": "full disk:0:2:full disk",
}


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What was counted for each plan; one process starts all attempts of all plans."""
    folder = tmp_path_factory.mktemp("chaos")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(RUNS), str(folder), *PLANS.values()],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        err = process.communicate(timeout=900)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0, err[-3000:]
    counted: dict[str, dict[str, Any]] = json.loads((folder / "counts.json").read_text())
    print(json.dumps(counted, indent=2))
    return counted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "num_kills"), [("one process", 18), ("two processes", 12), ("two cut processes", 6)]
)
def test_killed_trainings_end_in_the_same_bits(
    counts: dict[str, dict[str, Any]], plan: str, num_kills: int
) -> None:
    found = counts[plan]
    assert found["kills"] >= num_kills
    assert found["kills: save"] > 0
    assert found["half-written files left behind"] > 0, "no save was cut in the middle of a file"
    assert found["resumes"] > 0
    assert found["resumed steps"] >= found["trainings"], "a resume that trains nothing proves nothing"
    assert found["torn"] == 0
    assert found["identical"] == found["trainings"] > 0
    if plan != "one process":
        assert found["others that ended by themselves"] == found["kills: one rank"] > 0


@pytest.mark.slow
def test_a_file_written_in_place_would_be_noticed(counts: dict[str, dict[str, Any]]) -> None:
    assert counts["in place"]["torn"] == 1


@pytest.mark.slow
def test_a_dropped_random_state_would_be_noticed(counts: dict[str, dict[str, Any]]) -> None:
    assert counts["random state"]["different"] > 0


@pytest.mark.slow
def test_no_process_waits_for_one_that_cannot_save(counts: dict[str, dict[str, Any]]) -> None:
    found = counts["full disk"]
    assert found["ended by themselves"] == 2
    assert "the disk is full" in found["errors"]
    assert "the first process could not write a checkpoint" in found["errors"]
    assert 0 < found["step"] < 12
