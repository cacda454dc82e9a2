"""``run.find_learning_rate``: a suggestion in print, in a file and in the report; the run is as before."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Outcome, run_insight, write_tiny

from insight.api import learning_rate
from insight.api.fit import check_sweep
from insight.checkpoints.resume import Resumed
from insight.reporting import read_metrics
from insight.runtime.errors import ConfigError

Insight = Callable[..., Outcome]
FIT = ("fit", "--config", "tiny.yaml", "--model.network.dropout=0.2")
FIND = "--run.find_learning_rate=40"


def state(run: Path) -> dict[str, Any]:
    """Everything of the newest checkpoint that a sweep could have touched."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    kept = {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "insight", "global_step")}
    return kept | {"data": checkpoint["LanguageModelingDataModule"]}


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> dict[str, tuple[Path, Outcome]]:
    """One training without a sweep, after one, and after one that keeps the numbers it has drawn."""
    folder = tmp_path_factory.mktemp("sweeps")
    write_tiny(folder)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, options in (("plain", ()), ("swept", (FIND,)), ("careless", (FIND,))):
            if name == "careless":
                patch.setattr(learning_rate, "restore_random_state", lambda state: None)
            outcome = run_insight(*FIT, *options, f"--run.name={name}")
            assert outcome.code == 0, outcome.err
            found[name] = (folder / "runs" / name / "1", outcome)
    return found


Runs = dict[str, tuple[Path, Outcome]]


@pytest.mark.slow
def test_the_run_is_as_it_was(runs: Runs) -> None:
    plain, swept = runs["plain"][0], runs["swept"][0]
    assert same(state(plain), state(swept))
    losses = [[r["train/loss"] for r in read_metrics(run) if "train/loss" in r] for run in (plain, swept)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4
    assert not (plain / "learning_rate.json").exists()


@pytest.mark.slow
def test_a_sweep_that_draws_from_the_run_would_be_noticed(runs: Runs) -> None:
    assert not same(state(runs["plain"][0]), state(runs["careless"][0]))


@pytest.mark.slow
def test_it_suggests_in_print_in_a_file_and_in_the_report(runs: Runs) -> None:
    run, outcome = runs["swept"]
    record = json.loads((run / "learning_rate.json").read_text())
    assert 20 < len(record["losses"]) <= 40
    assert record["rates"]["embedding"] == 0.09
    assert 0.01 < record["steepest"] < (record["diverged"] or 100.1)
    assert "the loss falls fastest at" in outcome.err
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "The loss fell fastest at" in page
    assert 'id="chart-sweep"' in page


@pytest.mark.slow
def test_a_resumed_run_does_not_sweep_again(runs: Runs, workplace: Path) -> None:
    shutil.copytree(runs["swept"][0], workplace / "runs" / "swept" / "1")
    outcome = run_insight("fit", "--resume", "runs/swept/1", "--trainer.max_steps=6")
    assert outcome.code == 0, outcome.err
    assert "falls fastest" not in outcome.err
    steps = [r["step"] for r in read_metrics(workplace / "runs/swept/1") if "train/loss" in r]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_rates_ten_times_as_high_are_told(insight: Insight, workplace: Path) -> None:
    """The planted answer: whatever suits the network, of rates ten times as high it is a tenth."""
    rates = {"learning_rate": 0.02, "adam_learning_rate": 0.003, "embedding_learning_rate": 0.09}
    suggested = []
    for factor in (0.1, 1.0):
        options = [f"--model.optimizer.{name}={factor * rate}" for name, rate in rates.items()]
        assert insight(*FIT, "--run.find_learning_rate=60", "--trainer.max_steps=1", *options).code == 0
        run = max((workplace / "runs/tiny").iterdir(), key=lambda folder: int(folder.name))
        suggested.append(json.loads((run / "learning_rate.json").read_text())["steepest"])
    assert 3 < suggested[0] / suggested[1] < 33


@pytest.mark.slow
def test_several_processes_are_refused(workplace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "insight", *FIT, FIND, "--trainer.devices=2"],
        cwd=workplace,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "the sweep runs in one process, this run has 2" in done.stderr.splitlines()[-1]
    assert not (workplace / "runs").exists()


@pytest.mark.slow
def test_several_processes_of_a_launcher_are_refused(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which ``trainer.devices`` does not tell, as it is left out there."""
    from insight.api.configuration import InsightCLI

    arguments = [*FIT[1:], FIND, "--trainer.accelerator=cpu"]
    check_sweep(InsightCLI("fit", arguments), None)
    launched = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    for name, value in (launched | {"LOCAL_WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as error:
        check_sweep(InsightCLI("fit", arguments), None)
    assert (error.value.option, error.value.value) == ("run.find_learning_rate", 40)
    check_sweep(InsightCLI("fit", arguments), Resumed(workplace / "last.ckpt"))
