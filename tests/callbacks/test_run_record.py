from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from tiny_run import TinyData, TinyModule, tiny_fit, tiny_trainer

from insight.callbacks import EarlyStopping, GracefulInterrupt, RunCheckpoint, RunRecord, TrainingInterrupted
from insight.reporting import RunTensorBoard, read_summary
from insight.training import TargetReached


def info(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def test_a_run_explains_itself(tmp_path: Path) -> None:
    logger = RunTensorBoard(tmp_path)
    (tmp_path / "config.yaml").write_text("seed: 0\nmodel: {hidden_size: 16}\n")
    trainer, module = tiny_fit(tmp_path, [RunCheckpoint(), RunRecord()], logger=logger)
    facts = info(tmp_path)
    for key in ("command", "started", "finished", "insight_version", "torch_version", "hardware"):
        assert facts[key], key
    assert facts["parameters"] == sum(parameter.numel() for parameter in module.network.parameters())
    assert facts["precision"] == "32-true"
    assert facts["num_threads"] >= 1
    assert facts["kernels"] == []  # this network has no attention
    assert facts["data"] == {"train": {"documents": 1}}
    assert facts["stop_reason"] == "all 30 steps done"
    summary = read_summary(tmp_path)
    assert summary["validation/bits_per_byte"].unit == "bits per byte"
    best = summary["best/validation/bits_per_byte"].value
    assert best <= summary["validation/bits_per_byte"].value
    trainer.test(module, datamodule=TinyData(), verbose=False)
    assert read_summary(tmp_path)["test/bits_per_byte"].value > 0
    assert read_summary(tmp_path)["best/validation/bits_per_byte"].value == best
    page = (tmp_path / "report.html").read_text()
    assert "test/bits_per_byte" in page or "bits per byte" in page


def test_resumes_become_notes_and_the_start_is_kept(tmp_path: Path) -> None:
    record = RunRecord(report=False)
    tiny_fit(tmp_path, [RunCheckpoint(), record], max_steps=10)
    started = info(tmp_path)["started"]
    last = tmp_path / "checkpoints/last.ckpt"
    tiny_fit(tmp_path, [RunCheckpoint(), record], checkpoint=last, max_steps=20)
    facts = info(tmp_path)
    assert facts["started"] == started
    assert len(facts["notes"]) == 1
    assert facts["notes"][0].startswith("resumed at step 10 (")
    assert facts["stop_reason"] == "all 20 steps done"
    elsewhere = tmp_path / "elsewhere"
    tiny_fit(elsewhere, [RunCheckpoint(), record], checkpoint=last, max_steps=30)
    assert info(elsewhere)["notes"][0].startswith("went on from step 20 of ")
    assert info(elsewhere)["parameters"]


def test_an_interrupted_run_has_a_report(tmp_path: Path) -> None:
    class Interrupt(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 12:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingInterrupted):
        tiny_fit(tmp_path, [GracefulInterrupt(), Interrupt(), RunCheckpoint(), RunRecord()])
    assert info(tmp_path)["stop_reason"] == "interrupted by SIGINT at step 13"
    assert "interrupted by SIGINT at step 13" in info(tmp_path)["notes"][0]
    assert (tmp_path / "report.html").is_file()


def test_an_error_becomes_a_note(tmp_path: Path) -> None:
    class Fail(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 12:
                raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError):
        tiny_fit(tmp_path, [Fail(), RunRecord()])
    assert "ended at step 12 by RuntimeError: out of luck" in info(tmp_path)["notes"][0]
    assert not (tmp_path / "report.html").exists()


def test_the_reason_of_an_early_stop_is_kept(tmp_path: Path) -> None:
    stopping = EarlyStopping(criterion=TargetReached(100.0))
    tiny_fit(tmp_path, [stopping, RunRecord(report=False)])
    reason = info(tmp_path)["stop_reason"]
    assert reason.startswith("stopped early at step 10: validation/bits_per_byte: ")
    assert reason.endswith("target 100")


def test_testing_outside_a_run_writes_nothing(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, [RunRecord()])
    trainer.test(TinyModule(), datamodule=TinyData(), verbose=False)
    assert list(tmp_path.iterdir()) == []
