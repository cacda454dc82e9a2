"""Runs without data end with a message, and those that end early say why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_run import TinyData, TinyLoader, tiny_fit

from insight.callbacks import EndOfTraining, RunCheckpoint
from insight.runtime.errors import DataError


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
