"""What the files of a run say about its steps, and what copying, measuring and resuming leave alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Outcome, run_insight, write_tiny

from insight.reporting.run_files import read_run_record
from insight.runtime.run_folder import RunFolder

Insight = Callable[..., Outcome]
FIT = ("fit", "--config", "tiny.yaml")
RATES = ("train/learning_rate", "train/gradient_norm", "train/loss")


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def train(log_every_n_steps: int) -> None:
    """A run of 7 steps in the working folder."""
    options = ["--trainer.max_steps=7", "--trainer.val_check_interval=5"]
    options += [f"--trainer.log_every_n_steps={log_every_n_steps}", "--trainer.callbacks+=RunCheckpoint"]
    outcome = run_insight(*FIT, *options, "--trainer.callbacks.keep_every_n_steps=4")
    assert outcome.code == 0, outcome.err
    assert "insight: trained 7 steps in " in outcome.err
    assert "Epoch 0" not in outcome.out + outcome.err


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with a run that logs every third step."""
    folder = tmp_path_factory.mktemp("figures")
    write_tiny(folder)
    before = Path.cwd()
    os.chdir(folder)
    train(log_every_n_steps=3)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def second_run(place: Path) -> Path:
    """The second run in that folder, which logs each step."""
    os.chdir(place)
    train(log_every_n_steps=1)
    return Path("runs/tiny/2")


@pytest.fixture(autouse=True)
def _there(place: Path) -> None:
    os.chdir(place)


@pytest.mark.slow
def test_rows_are_labelled_by_the_steps_taken(second_run: Path) -> None:
    runs = {3: rows(Path("runs/tiny/1")), 1: rows(second_run)}
    trained = {
        interval: {row["step"]: row for row in run if "train/loss" in row} for interval, run in runs.items()
    }
    assert list(trained[3]) == [3, 6, 7]
    assert list(trained[1]) == [1, 2, 3, 4, 5, 6, 7]
    assert [row["step"] for row in runs[3] if "validation/loss" in row] == [5, 7]
    # The row that ends the run has the values of its own step, not those of an older row.
    for step in trained[3]:
        assert [trained[3][step][name] for name in RATES] == [trained[1][step][name] for name in RATES]


def test_the_report_tells_the_steps_and_the_time_of_training() -> None:
    run = Path("runs/tiny/1")
    assert "trained for 7 steps in" in (run / "report.html").read_text(encoding="utf-8")
    record = read_run_record(RunFolder(run))
    validated = next(row for row in rows(run) if row["step"] == 7 and "validation/loss" in row)
    tested = next(row for row in rows(run) if "test/loss" in row)
    assert record.num_steps == 7
    assert validated["seconds"] <= record.training_seconds <= tested["seconds"] <= record.seconds
    assert record.summary["validation/loss"].value == pytest.approx(validated["validation/loss"])


@pytest.mark.slow
def test_a_test_belongs_to_the_step_of_its_checkpoint() -> None:
    tested = [row["step"] for row in rows(Path("runs/tiny/1")) if "test/loss" in row]
    assert run_insight("test", "--checkpoint", "runs/tiny/1").code == 0
    assert [row["step"] for row in rows(Path("runs/tiny/1")) if "test/loss" in row] == tested * 2
    assert set(tested) <= {5, 7}


def test_a_validation_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(Path("runs/tiny/1"))
    outcome = run_insight("validate", "--checkpoint", "runs/tiny/1")
    assert outcome.code == 0, outcome.err
    assert contents(Path("runs/tiny/1")) == before


def test_a_test_of_a_run_that_cannot_be_written_is_only_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from insight.runtime import files

    def read_only(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    before = contents(Path("runs/tiny/1"))
    monkeypatch.setattr(files.tempfile, "TemporaryFile", read_only)
    outcome = run_insight("test", "--checkpoint", "runs/tiny/1")
    assert outcome.code == 0, outcome.err
    assert "not recorded" in outcome.err
    assert contents(Path("runs/tiny/1")) == before


@pytest.mark.slow
@pytest.mark.parametrize("command", ["validate", "predict"])
def test_a_run_that_names_its_callbacks_can_be_measured(command: str) -> None:
    """Also with one more option, and where its progress line is turned off."""
    options = ["--data.predict_files=test.txt"] if command == "predict" else []
    for more in ("--data.validation_batch_size=2", "--trainer.enable_progress_bar=false"):
        outcome = run_insight(command, "--checkpoint", "runs/tiny/1", *options, more)
        assert outcome.code == 0, outcome.err


@pytest.mark.slow
def test_a_resumed_copy_leaves_the_original_alone_and_repeats_no_row(
    tmp_path: Path, second_run: Path
) -> None:
    """The copy has the files of the original by a second name (``cp -al``)."""
    copy = tmp_path / "copy" / "1"
    copy.parent.mkdir()
    subprocess.run(["cp", "-al", str(second_run), str(copy)], check=True)
    shutil.copy(second_run / "checkpoints/step-00000004.ckpt", tmp_path / "kept.ckpt")
    before = contents(second_run)
    for path in (copy / "checkpoints").iterdir():
        path.unlink()
    shutil.copy(tmp_path / "kept.ckpt", copy / "checkpoints" / "last.ckpt")
    outcome = run_insight("fit", "--resume", str(copy))
    assert outcome.code == 0, outcome.err
    assert contents(second_run) == before
    steps = [row["step"] for row in rows(copy) if "train/loss" in row]
    assert steps == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.slow
def test_a_tokenizer_that_is_gone_is_taken_from_the_checkpoint(tmp_path: Path) -> None:
    training = ["train.txt", "--output", "mine.json", "--vocabulary_size", "300"]
    assert run_insight("tokenizer", "train", *training).code == 0
    options = ["--data.tokenizer=PretrainedTokenizerConfig", "--data.tokenizer.path=mine.json"]
    outcome = run_insight(*FIT, *options, "--run.name=gone")
    assert outcome.code == 0, outcome.err
    Path("mine.json").unlink()
    outcome = run_insight("fit", "--resume", "runs/gone/1", "--trainer.max_steps=5")
    assert outcome.code == 0, outcome.err
    assert "mine.json" in outcome.err
