"""Guards from YAML and the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from command_line import Outcome

Insight = Callable[..., Outcome]
FIT = ("fit", "--config", "tiny.yaml", "--run.test=false")


@pytest.mark.slow
def test_the_shipped_configuration_goes_over_another(insight: Insight, workplace: Path) -> None:
    outcome = insight(*FIT, "--config", "guards", "--model.guard.spikes.threshold=8", "--trainer.max_steps=2")
    assert outcome.code == 0, outcome.err
    saved = yaml.safe_load((workplace / "runs/tiny/1/config.yaml").read_text())
    guard = saved["model"]["init_args"]["guard"]["init_args"]
    assert (guard["non_finite"], guard["num_in_a_row"]) == ("roll_back", 5)
    assert guard["spikes"]["init_args"] == {
        "window": 128,
        "min_losses": 32,
        "threshold": 8.0,
        "action": "log",
    }
    assert "guard/num_skipped" in (workplace / "runs/tiny/1/metrics.jsonl").read_text()
    # The run is the one without guards, since nothing happened.
    assert insight("fit", "--resume", "runs/tiny/1", "--trainer.max_steps=3").code == 0


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--model.guard.non_finite=ignore", "non_finite"),
        ("--model.guard.num_in_a_row=0", "num_in_a_row=0"),
        ("--model.guard.spikes={class_path: SpikeDetector, init_args: {window: 3}}", "window=3"),
        ("--model.guard.spike=null", "spike"),
    ],
)
def test_mistakes_are_one_line(insight: Insight, workplace: Path, option: str, said: str) -> None:
    outcome = insight(*FIT, option)
    assert outcome.code == 2
    assert said in outcome.error_line
    assert not (workplace / "runs").exists()


def test_help_explains_them(insight: Insight) -> None:
    text = insight("fit", "--help").out
    assert "--run.time_limit" in text
    assert "auto_or_new" in text
    text = insight("fit", "--model.help=insight.training.LanguageModelingModule").out
    assert "--model.guard" in text
