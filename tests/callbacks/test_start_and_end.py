"""Runs without data end with a message, and those that end early say why."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from tiny_run import TinyData, TinyLoader, tiny_fit

from insight.callbacks import EndOfTraining, QuantizeAtEnd, RunCheckpoint, SafetyEvaluation
from insight.runtime.errors import DataError
from insight.runtime.messages import say


class Empty(TinyData):
    """Its loader has no batches."""

    def train_dataloader(self) -> TinyLoader:
        return TinyLoader(0, 0, self.batch_size, 0)


class BrokenPromise(TinyData):
    """Its loader has a length and gives nothing."""

    def train_dataloader(self) -> TinyLoader:
        class Nothing(TinyLoader):
            def __iter__(self) -> Any:
                return iter(())

        return Nothing(5, 0, self.batch_size, 0)


def test_an_empty_loader_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the training data gives no batch"):
        tiny_fit(tmp_path, [EndOfTraining()], data=Empty())


@pytest.mark.filterwarnings("ignore")
def test_without_the_callback_nobody_would_notice(tmp_path: Path) -> None:
    trainer, _ = tiny_fit(tmp_path, data=Empty())
    assert trainer.global_step == 0


def test_a_loader_that_keeps_no_promise_is_an_error(tmp_path: Path) -> None:
    """Lightning would begin epochs for ever."""
    with pytest.raises(DataError, match="the loader promises 5 batches an epoch and gives none"):
        tiny_fit(tmp_path, [EndOfTraining()], data=BrokenPromise(), limit_val_batches=0, val_check_interval=1)


def test_epochs_that_end_before_the_steps_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer, _ = tiny_fit(tmp_path, [EndOfTraining()], max_epochs=1, accumulate_grad_batches=3)
    assert trainer.global_step == 7
    said = capsys.readouterr().err
    assert "trainer.max_epochs=1 ends training after 7 steps, before trainer.max_steps=30" in said
    tiny_fit(tmp_path, [EndOfTraining()], max_epochs=2)
    assert "ends training" not in capsys.readouterr().err


def test_a_finished_run_says_that_nothing_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_fit(tmp_path, [EndOfTraining(), RunCheckpoint()])
    assert "nothing is left" not in capsys.readouterr().err
    last = tmp_path / "checkpoints/last.ckpt"
    tiny_fit(tmp_path, [EndOfTraining(), RunCheckpoint()], checkpoint=last)
    assert "nothing is left to train: step 30 was the last one" in capsys.readouterr().err
    # At the end of an epoch, with more to come.
    trainer, _ = tiny_fit(tmp_path, [EndOfTraining()], checkpoint=last, max_steps=33)
    assert trainer.global_step == 33


def test_a_limit_of_zero_is_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_fit(tmp_path, [EndOfTraining()], limit_train_batches=0)
    assert "trainer.limit_train_batches=0: nothing was trained" in capsys.readouterr().err


class Validations(Callback):
    """The optimizer steps that were validated."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        self.steps.append(trainer.global_step)


EVERY_30 = {"check_val_every_n_epoch": None, "val_check_interval": 30}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_steps": 45, **EVERY_30}, [30, 45]),
        ({"max_steps": 60, **EVERY_30}, [30, 60]),
        ({"max_steps": 3, **EVERY_30}, [3]),
        ({"max_steps": 7, **EVERY_30, "accumulate_grad_batches": 3}, [7]),
        ({"max_steps": 25, **EVERY_30, "min_epochs": 9}, [25]),
        # An epoch has 20 batches.
        ({"max_epochs": 3, "check_val_every_n_epoch": 2, "val_check_interval": None}, [40, 60]),
    ],
)
def test_the_trained_model_is_validated_once(
    tmp_path: Path, options: dict[str, Any], expected: list[int]
) -> None:
    seen = Validations()
    limits = {"max_steps": -1, "max_epochs": None} | options
    trainer, _ = tiny_fit(tmp_path, [EndOfTraining(), seen, RunCheckpoint()], **limits)
    assert seen.steps == expected
    assert trainer.global_step == expected[-1]
    last = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == expected[-1]
    assert trainer.check_val_every_n_epoch == options["check_val_every_n_epoch"]


def test_what_follows_training_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Later(Callback):
        def what_follows(self) -> str:
            return "a long measurement"

        def on_fit_end(self, trainer: Any, module: Any) -> None:
            say("measured")

    tiny_fit(tmp_path, [EndOfTraining(), Later()])
    lines = capsys.readouterr().err.splitlines()
    assert "a long measurement" in lines[-2]
    assert lines[-1] == "insight: measured"


@pytest.mark.parametrize(
    ("seconds", "compression", "suite"), [(2, 5, "watch"), (100, 40, "base"), (900, 60, "base")]
)
def test_what_follows_scales_with_training(
    monkeypatch: pytest.MonkeyPatch, seconds: float, compression: int, suite: str
) -> None:
    """Where the user has chosen, nothing is changed."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    scaled: list[Any] = [QuantizeAtEnd(), SafetyEvaluation()]
    chosen: list[Any] = [QuantizeAtEnd(seconds=7), SafetyEvaluation(final_suite="base")]
    for callback in scaled + chosen:
        clock[0] = 0.0
        callback.on_train_start(None, None)
        clock[0] = seconds
        callback.on_train_end(None, None)
    assert [callback.what_follows() for callback in scaled] == [
        f"compression ({compression} s)",
        f"the safety suite {suite}",
    ]
    assert [callback.what_follows() for callback in chosen] == ["compression (7 s)", "the safety suite base"]
