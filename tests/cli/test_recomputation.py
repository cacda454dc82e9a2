"""Activation checkpointing from YAML: the same losses to the last bit, and a run can go on in another way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Outcome

from insight.reporting import read_metrics

Insight = Callable[..., Outcome]
FIT = ("fit", "--config", "tiny.yaml", "--run.test=false", "--model.network.dropout=0.2")
OPTION = "--model.network.activation_checkpointing"


def losses(run: Path) -> list[float]:
    return [record["train/loss"] for record in read_metrics(run) if "train/loss" in record]


@pytest.mark.slow
def test_a_run_that_recomputes_is_the_same_run(insight: Insight, workplace: Path) -> None:
    assert insight(*FIT).code == 0
    outcome = insight(*FIT, f"{OPTION}=ActivationCheckpointing", f"{OPTION}.every=1")
    assert outcome.code == 0, outcome.err
    plain, recomputing = (losses(workplace / "runs" / "tiny" / number) for number in "12")
    assert len(plain) == 4
    assert recomputing == plain
    assert "ActivationCheckpointing" in (workplace / "runs/tiny/2/config.yaml").read_text(encoding="utf-8")
    again = insight("fit", "--resume", "runs/tiny/2", f"{OPTION}.part=attention", "--trainer.max_steps=5")
    assert again.code == 0, again.err


@pytest.mark.slow
def test_mistakes_are_one_line(insight: Insight, workplace: Path) -> None:
    outcome = insight(*FIT, f"{OPTION}=ActivationCheckpointing", f"{OPTION}.every=0")
    assert outcome.code == 2
    assert "every=0" in outcome.error_line
    outcome = insight(*FIT, f"{OPTION}=ActivationCheckpointing", f"{OPTION}.part=blocks")
    assert outcome.code == 2
    assert "part" in outcome.error_line
