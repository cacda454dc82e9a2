"""The logger: every record reaches the file, and a resumed run leaves no step twice."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from insight.reporting import MetricsFile, read_metrics
from insight.reporting import metrics_file as metrics_file_module


def records(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_record_is_in_the_file_at_once(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path / "run" / "metrics.jsonl")
    logger.log_metrics({"train/loss": 3.5, "epoch": 0}, step=0)
    logger.log_metrics({"train/loss": math.nan}, step=1)
    lines = records(tmp_path / "run" / "metrics.jsonl")  # not closed, not flushed by us
    assert [line["step"] for line in lines] == [0, 1]
    assert lines[0]["train/loss"] == 3.5
    assert lines[1]["train/loss"] is None
    assert 0 <= lines[0]["seconds"] <= lines[1]["seconds"]


def test_finalize_closes_and_a_later_record_opens_again(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path / "metrics.jsonl")
    logger.log_metrics({"train/loss": 1.0}, step=5)
    logger.finalize("success")
    logger.log_metrics({"test/loss": 2.0}, step=5)
    logger.finalize("success")
    assert len(records(logger.path)) == 2


def interrupted_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained to step 9 in ten seconds, killed in the middle of a line."""
    clock = [100.0]
    monkeypatch.setattr(metrics_file_module.time, "monotonic", lambda: clock[0])
    logger = MetricsFile(path)
    for step in range(10):
        clock[0] += 1
        logger.log_metrics({"train/loss": 10.0 - step}, step)
        if step in (3, 7):
            logger.log_metrics({"validation/loss": 9.0 - step}, step)
    logger.finalize("failed")
    with path.open("a") as file:
        file.write('{"step": 10, "tra')


def test_resumed_run_drops_later_records_and_the_clock_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    interrupted_run(path, monkeypatch)
    clock = [5000.0]
    monkeypatch.setattr(metrics_file_module.time, "monotonic", lambda: clock[0])
    logger = MetricsFile(path)
    for step in range(6, 12):  # restored the checkpoint after step 5
        clock[0] += 1
        logger.log_metrics({"train/loss": 100.0 + step}, step)
    metrics = read_metrics(path)
    assert [record["step"] for record in metrics] == list(range(12))
    assert [record["train/loss"] for record in metrics] == [10, 9, 8, 7, 6, 5, 106, 107, 108, 109, 110, 111]
    assert "validation/loss" in metrics[3]
    assert "validation/loss" not in metrics[7]  # it belonged to the lost steps
    seconds = [record["seconds"] for record in metrics]
    assert seconds == sorted(seconds)
    assert seconds[6] < 20  # not the 4,900 seconds between the two processes


def test_first_record_of_a_resumed_run_may_be_a_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    interrupted_run(path, monkeypatch)
    logger = MetricsFile(path)
    logger.log_metrics({"validation/loss": 50.0}, step=5)
    logger.log_metrics({"train/loss": 60.0}, step=6)
    metrics = read_metrics(path)
    assert [record["step"] for record in metrics] == list(range(7))
    assert metrics[5]["validation/loss"] == 50.0


def test_testing_and_validating_never_drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    interrupted_run(path, monkeypatch)
    logger = MetricsFile(path)
    logger.log_metrics({"test/loss": 2.0}, step=0)
    logger.log_metrics({"validation/loss": 2.0}, step=0)
    assert len(read_metrics(path)) == 10


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = MetricsFile(tmp_path / "metrics.jsonl")
    logger.log_metrics({"train/loss": 1.0}, step=0)
    logger.drop_after(0)
    logger.finalize("success")
    assert not logger.path.exists()
