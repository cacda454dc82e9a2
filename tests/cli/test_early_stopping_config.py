"""The shipped configuration that ends by itself, made small: it stops before its last step and says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Outcome

from insight.reporting import read_run_info

SHIPPED = Path(__file__).parents[2] / "configs" / "early_stopping.yaml"
NUM_STEPS = 1200


def small(folder: Path, **criteria: dict[str, Any]) -> str:
    """The shipped file with bytes for a tokenizer, a smaller network, and other thresholds."""
    config = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    config["data"] |= {
        "train_files": "train.txt", "validation_files": "validation.txt",
        "tokenizer": "ByteTokenizerConfig", "sequence_length": 16, "batch_size": 4,
    }  # fmt: skip
    config["model"]["network"] |= {"hidden_size": 16, "num_layers": 1, "max_sequence_length": 32}
    config["trainer"] |= {"max_steps": NUM_STEPS, "val_check_interval": 20, "precision": "32-true"}
    callbacks = config["trainer"]["callbacks"]
    for criterion in callbacks[1]["init_args"]["criterion"]["init_args"]["criteria"]:
        criterion["init_args"] = criterion.get("init_args", {}) | criteria.get(criterion["class_path"], {})
    callbacks[0]["init_args"] = {"every_n_validations": 1000, "settings": {"max_new_tokens": 8}}
    path = folder / "early_stopping.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return str(path)


@pytest.mark.slow
def test_it_stops_by_itself_and_shows_why(insight: Callable[..., Outcome], workplace: Path) -> None:
    config = small(workplace, ExpectedGain={"min_gain": 0.2})
    outcome = insight("fit", "--config", "tiny.yaml", "--config", config, "--seed", "1")
    assert outcome.code == 0, outcome.err
    run = workplace / "runs/early_stopping/1"
    record = json.loads((run / "early_stopping.json").read_text())
    assert record["stopped"]
    assert 100 <= record["step"] < NUM_STEPS
    assert f"stopping early at step {record['step']}" in outcome.err
    assert str(read_run_info(run)["stop_reason"]).startswith(f"stopped early at step {record['step']:,}")
    names = [answer["criterion"] for answer in record["answers"]]
    assert names == ["ExpectedGain", "GrowingGap", "Divergence", "DurationBudget"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f"Stopped at step {record['step']:,} of {NUM_STEPS:,}" in page
    assert "says stop" in page
    assert 'id="chart-stopping-0"' in page


@pytest.mark.slow
def test_without_a_reason_it_takes_all_its_steps(insight: Callable[..., Outcome], workplace: Path) -> None:
    config = small(workplace, ExpectedGain={"min_validations": 50}, GrowingGap={"num_validations": 50})
    outcome = insight("fit", "--config", "tiny.yaml", "--config", config, "--trainer.max_steps", "200")
    assert outcome.code == 0, outcome.err
    run = workplace / "runs/early_stopping/1"
    assert not json.loads((run / "early_stopping.json").read_text())["stopped"]
    assert "Did not stop: at step 200 of 200" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_it_passes_the_check_over_the_quickstart(insight: Callable[..., Outcome], workplace: Path) -> None:
    outcome = insight(
        "check", "--config", "quickstart", "--config", "early_stopping",
        "--data.tokenizer", "ByteTokenizerConfig", "--run.num_threads", "1", "--trainer.precision", "32-true",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert not list(workplace.glob("early_stopping.json"))
