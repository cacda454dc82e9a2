"""A safety run that is killed again and again ends with the bytes of one that never was."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_training import train_on

from insight.safety.red_teaming import unfinished_folder

pytestmark = pytest.mark.slow

NUM_KILLS = 5
# A run folder gets the results of three measures of a checkpoint, and its report.
SCRIPT = """
import sys
from pathlib import Path

import torch

from insight.checkpoints.reader import load_checkpoint
from insight.reporting import write_report
from insight.runtime.run_folder import RunFolder
from insight.safety import NetworkTarget, find_suite, red_team
from insight.safety.network_targets import path_identity

torch.set_num_threads(1)
checkpoint, run = Path(sys.argv[1]), RunFolder(Path(sys.argv[2]))
loaded = load_checkpoint(checkpoint)
target = NetworkTarget(loaded.network, loaded.tokenizer, "small", path_identity(checkpoint))
red_team(target, find_suite("base", ["bias", "injection", "toxicity"]), output=run.path / "safety")
write_report(run)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    train_on(folder, ["The quick brown fox jumps over the lazy dog. " * 60], num_steps=20)
    return folder / "model.ckpt"


def start(checkpoint: Path, run: Path) -> subprocess.Popen[str]:
    run.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", SCRIPT, str(checkpoint), str(run)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def ledger_of(run: Path) -> Path:
    return unfinished_folder(run / "safety") / "ledger.jsonl"


def num_lines(ledger: Path) -> int:
    return ledger.read_bytes().count(b"\n") if ledger.is_file() else 0


def wait_for(process: subprocess.Popen[str], ledger: Path, lines: int) -> None:
    """Until the process has opened the ledger and, beyond what was there, is asking."""
    while num_lines(ledger) < lines and process.poll() is None:
        time.sleep(0.005)


def contents(run: Path) -> dict[str, bytes]:
    files = (path for path in run.rglob("*") if path.is_file())
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


def test_killed_five_times_it_ends_with_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    reference, killed, tampered = (tmp_path / name / "run" / "1" for name in ("whole", "killed", "tampered"))
    finish(start(checkpoint, reference))
    expected = contents(reference)
    assert set(expected) == {
        "report.html",
        "safety/ledger.jsonl",
        "safety/results.jsonl",
        "safety/summary.json",
    }
    total = num_lines(reference / "safety" / "ledger.jsonl")
    assert total > 2 * NUM_KILLS

    moments = random.Random(0)
    left_by_kills = []
    for _ in range(NUM_KILLS):
        before = num_lines(ledger_of(killed))
        process = start(checkpoint, killed)
        # By lines, not by seconds: half of them are left for whatever the machine does meanwhile.
        wait_for(process, ledger_of(killed), before + moments.randint(1, total // (2 * NUM_KILLS)))
        time.sleep(moments.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL  # none of the kills came too late
        assert not (killed / "safety").exists()
        left_by_kills.append(num_lines(ledger_of(killed)))
    assert left_by_kills == sorted(left_by_kills)  # nothing that was answered is lost
    assert 1 < left_by_kills[-1] < total
    shutil.copytree(killed, tampered)

    finish(start(checkpoint, killed))
    assert contents(killed) == expected

    # The twin: what resuming takes from the ledger is what comes out, so one changed answer shows.
    ledger = ledger_of(tampered)
    header, first, *rest = ledger.read_text(encoding="ascii").splitlines()
    batch = json.loads(first)
    batch["responses"][0]["log_likelihoods"][0] -= 50
    lines = [header, json.dumps(batch, separators=(",", ":")), *rest]
    ledger.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    finish(start(checkpoint, tampered))
    changed = contents(tampered)
    assert {name for name in expected if changed[name] != expected[name]} >= {
        "safety/ledger.jsonl",
        "safety/results.jsonl",
    }
