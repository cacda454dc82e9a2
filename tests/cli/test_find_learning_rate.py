"""``run.find_learning_rate``: a suggestion in print, in a file and in the report; the run is as before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Outcome

from insight.cli import learning_rate
from insight.reporting import read_metrics

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


@pytest.mark.slow
def test_it_suggests_and_leaves_the_run_as_it_was(insight: Insight, workplace: Path) -> None:
    assert insight(*FIT).code == 0
    outcome = insight(*FIT, FIND)
    assert outcome.code == 0, outcome.err
    plain, found = workplace / "runs/tiny/1", workplace / "runs/tiny/2"
    assert same(state(plain), state(found))
    losses = [[r["train/loss"] for r in read_metrics(run) if "train/loss" in r] for run in (plain, found)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4

    record = json.loads((found / "learning_rate.json").read_text())
    assert 20 < len(record["losses"]) <= 40
    assert record["rates"]["embedding"] == 0.09
    assert 0.01 < record["steepest"] < (record["diverged"] or 100.1)
    assert "the loss falls fastest at" in outcome.err
    assert "The loss fell fastest at" in (found / "report.html").read_text()
    assert 'id="chart-sweep"' in (found / "report.html").read_text()
    assert not (plain / "learning_rate.json").exists()


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
def test_a_sweep_that_draws_from_the_run_would_be_noticed(
    insight: Insight, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_rate, "restore_random_state", lambda state: None)
    assert insight(*FIT).code == 0
    assert insight(*FIT, FIND).code == 0
    assert not same(state(workplace / "runs/tiny/1"), state(workplace / "runs/tiny/2"))


@pytest.mark.slow
def test_a_resumed_run_does_not_sweep_again(insight: Insight, workplace: Path) -> None:
    assert insight(*FIT, FIND).code == 0
    outcome = insight("fit", "--resume", "runs/tiny/1", "--trainer.max_steps=6")
    assert outcome.code == 0, outcome.err
    assert "falls fastest" not in outcome.err
    steps = [r["step"] for r in read_metrics(workplace / "runs/tiny/1") if "train/loss" in r]
    assert steps == list(range(6))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--run.find_learning_rate=5",), "find_learning_rate=5"),
        (("--run.find_learning_rate=many",), "find_learning_rate"),
    ],
)
def test_bad_values_end_before_anything_is_written(
    insight: Insight, workplace: Path, options: tuple[str, ...], named: str
) -> None:
    outcome = insight(*FIT, *options)
    assert outcome.code == 2
    assert named in outcome.error_line
    assert not (workplace / "runs").exists()
