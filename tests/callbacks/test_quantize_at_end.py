"""At the end of a run its best model is quantized; the training is the same without that."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from tiny_training import same_weights, train

from insight.callbacks import QuantizeAtEnd, RunCheckpoint
from insight.checkpoints.artifact import load_model
from insight.reporting import RunTensorBoard, read_summary
from insight.runtime.errors import ConfigError

QUICK: dict[str, Any] = {"compile": "off", "max_quality_loss": 0.9, "seconds": 1.0}
OPTIONS = {"enable_checkpointing": True, "limit_val_batches": 1, "val_check_interval": 2}


def run(folder: Path, *callbacks: Any, **options: Any) -> Any:
    folder.mkdir(exist_ok=True)
    return train(folder, 4, callbacks=(RunCheckpoint(), *callbacks), trainer_options=OPTIONS | options)[1]


def test_the_best_model_is_quantized(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain")
    logged: dict[str, float] = {}

    class Logger(RunTensorBoard):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            logged.update(metrics)

    folder = tmp_path / "quantized"
    module = run(folder, QuantizeAtEnd("int8_weight_only", **QUICK), logger=Logger(folder))
    assert same_weights(plain.network, module.network)
    loaded = load_model(folder / "quantization")
    assert loaded.metadata["quantization"]["method"] == "int8_weight_only"
    report = json.loads((folder / "quantization" / "report.json").read_text())
    assert [one["name"] for one in report["candidates"]] == ["original", "int8_weight_only"]
    summary = read_summary(folder)
    assert summary["quantization/compression"].value > 1.5
    assert summary["quantization/bits_per_byte_difference"].interval is not None
    assert {name for name in logged if name.startswith("quantization/")} == {
        name for name in summary if name.startswith("quantization/")
    }


@pytest.mark.slow
def test_auto_leaves_a_report_whatever_it_chooses(tmp_path: Path) -> None:
    run(tmp_path / "run", QuantizeAtEnd(**QUICK))
    report = json.loads((tmp_path / "run" / "quantization" / "report.json").read_text())
    assert len(report["candidates"]) == 5
    artifact = tmp_path / "run" / "quantization" / "quantization.json"
    assert artifact.exists() == (report["chosen"] != "original")


@pytest.mark.slow
def test_a_failure_is_said_and_costs_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "run", QuantizeAtEnd("int8_dynamic", **(QUICK | {"max_quality_loss": 0.0})))
    assert "quantization: max_quality_loss=0.0: int8_dynamic writes" in capsys.readouterr().err
    assert not (tmp_path / "run" / "quantization").exists()


def test_without_a_checkpoint_there_is_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, 2, callbacks=(QuantizeAtEnd(**QUICK),))
    assert "kept no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "quantization").exists()


@pytest.mark.parametrize(
    "options",
    [{"method": "int8"}, {"compile": "maybe"}]
    + [{"max_quality_loss": value} for value in (-1, 1.5, math.inf, True, "0.1")]
    + [{"seconds": value} for value in (0, -1, math.inf, True, "60")],
)
def test_mistakes(options: Any) -> None:
    with pytest.raises(ConfigError) as mistake:
        QuantizeAtEnd(**options)
    assert {mistake.value.option: mistake.value.value} == options
