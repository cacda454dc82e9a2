"""Metrics, samples, summary and run info as they are read back."""

from __future__ import annotations

import math
from pathlib import Path

from insight.reporting import (
    Metric,
    Sample,
    append_sample,
    read_metrics,
    read_run_info,
    read_samples,
    read_summary,
    update_run_info,
    update_summary,
)
from insight.reporting.run_files import curve, unit_of


def test_metrics_are_merged_by_step(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 2, "seconds": 2, "train/loss": 5}\n'
        '{"step": 1, "seconds": 1, "train/loss": 6, "epoch": 0}\n'
        '{"step": 2, "seconds": 3, "validation/loss": 4}\n'
        '{"step": 2, "train/loss": null, "note": "x"}\n'
        '{"seconds": 1}\n{"step": true}\n{"step": "3"}\n'
    )
    metrics = read_metrics(tmp_path)
    assert [record["step"] for record in metrics] == [1, 2]
    assert metrics[1]["validation/loss"] == 4
    assert math.isnan(metrics[1]["train/loss"])
    losses = curve(metrics, "train/loss")
    assert losses.steps == (1, 2)
    assert losses.seconds == (1, 2)  # when the step was reached, not when it was validated
    assert curve(metrics, "missing").steps == ()
    assert read_metrics(tmp_path / "missing") == []


def test_samples_by_step_later_ones_count(tmp_path: Path) -> None:
    for sample in (
        Sample(9, "a", "old"),
        Sample(5, "a", "early"),
        Sample(9, "a", "new"),
        Sample(9, "b", "other"),
    ):
        append_sample(tmp_path / "samples.jsonl", sample)
    (tmp_path / "samples.jsonl").open("a").write('{"step": 1}\n')
    assert read_samples(tmp_path) == [Sample(5, "a", "early"), Sample(9, "a", "new"), Sample(9, "b", "other")]


def test_summary_round_trip_and_update(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    first = {"a": Metric(1.5, (1.4, 1.6), 100, "bits per byte"), "b": Metric(2.0)}
    update_summary(path, first)
    update_summary(path, {"b": Metric(3.0), "c": Metric(math.nan)})
    summary = read_summary(tmp_path)
    assert summary["a"] == first["a"]
    assert summary["b"] == Metric(3.0)
    assert math.isnan(summary["c"].value)


def test_damaged_summary(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(
        '{"metrics": {"a": 3, "b": {"value": "x", "interval": [1], "n": "y"}, "c": {"interval": [null, 2]}}}'
    )
    summary = read_summary(tmp_path)
    assert set(summary) == {"b", "c"}
    assert math.isnan(summary["b"].value)
    assert summary["b"].interval is None
    assert summary["c"].interval is None
    (tmp_path / "summary.json").write_text('{"metrics": []}')
    assert read_summary(tmp_path) == {}


def test_units() -> None:
    assert unit_of("validation/bits_per_byte") == "bits per byte"
    assert unit_of("quantization/something") == ""


def test_run_info_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    update_run_info(path, notes=("first",), precision="32-true")
    update_run_info(path, notes=("second",), parameters=5)
    assert read_run_info(tmp_path) == {"notes": ["first", "second"], "precision": "32-true", "parameters": 5}
