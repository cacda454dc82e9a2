"""``data.canaries`` on the command line and in YAML: planted, recorded, resumed, refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from command_line import Outcome

Insight = Callable[..., Outcome]
FIT = ("fit", "--config", "tiny.yaml")
PLANT = ("--data.canaries.num_canaries=2", "--data.canaries.repetitions=3", "--data.canaries.num_digits=3")


@pytest.mark.slow
def test_planted_recorded_and_resumed(insight: Insight, workplace: Path) -> None:
    outcome = insight(*FIT, *PLANT)
    assert outcome.code == 0, outcome.err
    run = workplace / "runs" / "tiny" / "1"
    record = json.loads((run / "run.json").read_text())["data"]["canaries"]
    assert len(record["planted"]) == 2
    assert record["repetitions"] == 3
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["insight"]["canaries"] == record
    assert "canaries planted in the training text" in (run / "report.html").read_text()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["init_args"]["canaries"]["init_args"]["num_canaries"] == 2
    resumed = insight("fit", "--resume", str(run), "--trainer.max_steps=6")
    assert resumed.code == 0, resumed.err
    assert json.loads((run / "run.json").read_text())["data"]["canaries"] == record


@pytest.mark.slow
def test_off_by_default_and_in_yaml(insight: Insight, workplace: Path) -> None:
    assert insight(*FIT).code == 0
    assert "canaries" not in json.loads((workplace / "runs/tiny/1/run.json").read_text())["data"]
    config = yaml.safe_load(Path("tiny.yaml").read_text())
    # The line that the quickstart has as a comment.
    quickstart = (Path(__file__).parents[2] / "configs" / "quickstart.yaml").read_text()
    commented = re.search(r"^  # (canaries: \{.*\})", quickstart, re.MULTILINE)
    assert commented
    config["data"] |= yaml.safe_load(commented[1])
    Path("planted.yaml").write_text(yaml.safe_dump(config))
    outcome = insight("fit", "--config", "planted.yaml")
    assert outcome.code == 0, outcome.err
    record = json.loads((workplace / "runs/tiny/2/run.json").read_text())["data"]["canaries"]
    assert len(record["planted"]) == 8


def test_help_explains_it(insight: Insight) -> None:
    shown = insight("fit", "--data.help", "insight.LanguageModelingDataModule")
    assert shown.code == 0, shown.err
    assert "--data.canaries" in shown.out
    assert "Secrets to plant in the training text" in " ".join(shown.out.split())
