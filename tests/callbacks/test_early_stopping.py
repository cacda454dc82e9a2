from __future__ import annotations

from pathlib import Path

import pytest
from tiny_run import TinyModule, TinySchedule, tiny_fit

from insight.callbacks.checkpointing import RunCheckpoint
from insight.callbacks.early_stopping import EarlyStopping
from insight.runtime.errors import ConfigError
from insight.training.stopping import (
    AllOf,
    Criterion,
    Divergence,
    GrowingGap,
    Patience,
    TargetReached,
    TokenBudget,
)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The values that the coming validations find."""
    values: list[float] = []

    class Scripted(TinyModule):
        def on_validation_epoch_end(self) -> None:
            self.log("validation/scripted", values.pop(0))

    monkeypatch.setattr("tiny_run.TinyModule", Scripted)
    return values


def test_it_stops_after_patience_and_says_why(
    tmp_path: Path, scripted: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    scripted += [2.0, 1.0, 1.5, 1.2, 0.1]
    stopping = EarlyStopping("validation/scripted", Patience(2))
    trainer, _ = tiny_fit(tmp_path, [stopping], max_steps=100)
    assert trainer.global_step == 40
    reason = "validation/scripted: no improvement on 1.0000 in 2 validations"
    assert stopping.stopping_reason_message == reason
    assert f"insight: stopping early at step 40: {reason}\n" in capsys.readouterr().err


def test_a_run_that_improves_goes_on(tmp_path: Path, scripted: list[float]) -> None:
    scripted += [5.0, 4.0, 4.5, 3.0, 3.5]
    stopping = EarlyStopping("validation/scripted", Patience(2))
    trainer, _ = tiny_fit(tmp_path, [stopping], max_steps=50)
    assert trainer.global_step == 50
    assert stopping.stopping_reason_message is None


@pytest.mark.parametrize(
    ("criterion", "mode", "values", "reason"),
    [
        (TargetReached(1.0), "min", [3.0, 0.9], "0.9000, target 1"),
        (Divergence(1.5), "min", [3.0, 6.0], "6.0000, beyond hope above 4.5000"),
        (Divergence(), "min", [3.0, float("nan")], "the metric is nan"),
        (Patience(1), "max", [3.0, 2.0], "no improvement on -3.0000"),
        (TokenBudget(2 * 10 * 4 * 8), "min", [3.0, 2.0], "640 of 640 tokens"),
        (AllOf((Patience(1), TargetReached(4.0))), "min", [3.0, 3.5], "1 validations; 3.5000, target 4"),
    ],
)
def test_every_reason_is_a_sentence(
    tmp_path: Path, scripted: list[float], criterion: Criterion, mode: str, values: list[float], reason: str
) -> None:
    scripted += [*values, 0.0, 0.0]
    stopping = EarlyStopping("validation/scripted", criterion, mode)
    trainer, _ = tiny_fit(tmp_path, [stopping], max_steps=50)
    assert trainer.global_step == 20
    assert reason in str(stopping.stopping_reason_message)


def test_a_resumed_run_counts_on_and_takes_the_new_criterion(tmp_path: Path, scripted: list[float]) -> None:
    scripted += [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    last = tmp_path / "checkpoints/last.ckpt"
    tiny_fit(tmp_path, [EarlyStopping("validation/scripted", Patience(2)), RunCheckpoint()], max_steps=100)
    stopping = EarlyStopping("validation/scripted", Patience(4))
    trainer, _ = tiny_fit(tmp_path, [stopping, RunCheckpoint()], checkpoint=last, max_steps=100)
    assert trainer.global_step == 50
    assert [validation.step for validation in stopping.validations] == [10, 20, 30, 40, 50]


def test_an_interrupted_run_judges_as_the_uninterrupted_one(tmp_path: Path) -> None:
    """History, tokens and training losses survive, in the middle of an interval too."""

    class Steady(TinySchedule):
        def multiplier(self, step: int, num_steps: int) -> float:
            return 1.0

    def fit(folder: Path, max_steps: int, checkpoint: Path | None = None) -> EarlyStopping:
        stopping = EarlyStopping("validation/bits_per_byte", GrowingGap(4))
        callbacks = [stopping, RunCheckpoint()]
        tiny_fit(folder, callbacks, checkpoint, max_steps=max_steps, schedule=Steady())
        return stopping

    whole = fit(tmp_path / "whole", 60)
    fit(tmp_path / "halves", 25)
    halves = fit(tmp_path / "halves", 60, tmp_path / "halves/checkpoints/last.ckpt")
    assert len(whole.validations) == 6
    for ours, theirs in zip(halves.validations, whole.validations, strict=True):
        assert (ours.step, ours.num_tokens, ours.value) == (theirs.step, theirs.num_tokens, theirs.value)
        assert ours.training_value == pytest.approx(theirs.training_value, rel=1e-6)


def test_an_unknown_metric_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'validation/loss'"):
        tiny_fit(tmp_path, [EarlyStopping("validation/los")])


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="EarlyStopping"):
        EarlyStopping(mode="up")
