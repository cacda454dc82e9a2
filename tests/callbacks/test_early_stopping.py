from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import pytest
from fake_clock import FakeClock, Workload
from test_monitors import Collect, logged
from tiny_run import TinyModule, TinySchedule, tiny_fit

from insight.callbacks import early_stopping
from insight.callbacks.checkpointing import RunCheckpoint
from insight.callbacks.early_stopping import EarlyStopping
from insight.runtime.errors import ConfigError
from insight.training.stopping import (
    AllOf,
    Criterion,
    Divergence,
    DurationBudget,
    ExpectedGain,
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


class Forgetful(EarlyStopping):
    """The planted fault: nothing comes back from the checkpoint."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


def stopped_at(folder: Path, kind: type[EarlyStopping], criterion: Criterion, interrupted: int = 0) -> str:
    """Where a run stopped and why; ``interrupted`` in the middle of an interval of validations."""
    checkpoint = None
    for max_steps in (interrupted, 400):
        if max_steps:
            stopping = kind("validation/bits_per_byte", criterion)
            callbacks = [stopping, RunCheckpoint()]
            trainer, _ = tiny_fit(folder, callbacks, checkpoint, max_steps=max_steps, schedule=Still())
            checkpoint = folder / "checkpoints/last.ckpt"
    return f"{trainer.global_step}: {stopping.stopping_reason_message}"


class Still(TinySchedule):
    def multiplier(self, step: int, num_steps: int) -> float:
        return 1.0


def test_an_interrupted_run_stops_where_the_uninterrupted_one_does(tmp_path: Path) -> None:
    """And one that forgets its history does not."""
    criterion = ExpectedGain(min_gain=0.02, num_steps=400)
    whole = stopped_at(tmp_path / "whole", EarlyStopping, criterion)
    assert int(whole.split(":")[0]) < 400, whole
    assert "the curve still gains" in whole
    assert stopped_at(tmp_path / "halves", EarlyStopping, criterion, interrupted=45) == whole
    assert stopped_at(tmp_path / "forgetful", Forgetful, criterion, interrupted=45) != whole


@pytest.mark.parametrize(("kind", "steps"), [(EarlyStopping, 80), (Forgetful, 110)])
def test_hours_before_an_interruption_count_and_those_after_it_do_not(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, kind: type[EarlyStopping], steps: int
) -> None:
    """36 s a step: 80 steps are 0.8 hours. A callback that forgets the first thirty takes as many more."""
    monkeypatch.setattr(early_stopping, "time", types.SimpleNamespace(monotonic=clock))
    checkpoint = None
    for max_steps in (30, 200):
        stopping = kind(criterion=DurationBudget(0.8))
        callbacks = [stopping, Workload(clock, batch=36.0), RunCheckpoint()]
        trainer, _ = tiny_fit(tmp_path, callbacks, checkpoint, max_steps=max_steps)
        checkpoint = tmp_path / "checkpoints/last.ckpt"
        clock.seconds += 1e6  # waiting in the queue
    assert trainer.global_step == steps
    assert "0.8 of 0.8 hours" in str(stopping.stopping_reason_message)


def test_the_evidence_is_written_at_every_validation(tmp_path: Path, scripted: list[float]) -> None:
    scripted += [2.0, 1.0, 1.5, 1.2, 0.1]
    loggers = [Collect(), Collect()]
    criterion = AllOf((Patience(2), TargetReached(1.3)))
    seen: list[dict[str, Any]] = []

    class Reader(EarlyStopping):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            super().on_validation_end(trainer, pl_module)
            seen.append(json.loads((tmp_path / "early_stopping.json").read_text()))

    tiny_fit(tmp_path, [Reader("validation/scripted", criterion)], max_steps=100, logger=loggers)
    assert [record["step"] for record in seen] == [10, 20, 30, 40]
    assert [record["stopped"] for record in seen] == [False, False, False, True]
    newest = seen[-1]
    assert [validation["value"] for validation in newest["validations"]] == pytest.approx(
        [2.0, 1.0, 1.5, 1.2]
    )
    assert [answer["criterion"] for answer in newest["answers"]] == ["Patience", "TargetReached"]
    assert newest["answers"][0]["lines"][0]["values"] == [1.0, 1.0]
    assert newest["num_planned_steps"] == 100
    for logger in loggers:
        assert logged(logger, "early_stopping/waited") == {10: 0, 20: 0, 30: 1, 40: 2}


def test_larger_is_better_is_written_as_it_was_measured(tmp_path: Path, scripted: list[float]) -> None:
    scripted += [1.0, 3.0, 2.0]
    tiny_fit(tmp_path, [EarlyStopping("validation/scripted", Patience(5), "max")], max_steps=30)
    record = json.loads((tmp_path / "early_stopping.json").read_text())
    assert [validation["value"] for validation in record["validations"]] == [1.0, 3.0, 2.0]
    assert record["answers"][0]["lines"][0]["values"] == [3.0, 3.0]
    assert record["stopped"] is False


@pytest.mark.parametrize(
    ("values", "steps", "said"),
    [
        # The metric improves before the run may stop: the wish is forgotten.
        ([1.0, 1.1, 1.2, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], 100, "not stopping early any more at step 40"),
        # It does not: the run ends as soon as it may.
        ([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9], 60, "stopping early at step 60"),
    ],
)
def test_a_wish_that_is_not_carried_out_is_forgotten_when_the_metric_improves(
    tmp_path: Path,
    scripted: list[float],
    capsys: pytest.CaptureFixture[str],
    values: list[float],
    steps: int,
    said: str,
) -> None:
    scripted += values
    stopping = EarlyStopping("validation/scripted", Patience(2))
    trainer, _ = tiny_fit(tmp_path, [stopping], max_steps=100, min_steps=60)
    assert trainer.global_step == steps
    err = capsys.readouterr().err
    assert err.count("would stop early at step 30") == 1
    assert said in err
    assert err.count("stopping early at step") == (steps == 60)
    record = json.loads((tmp_path / "early_stopping.json").read_text())
    assert record["stopped"] is (steps == 60)


def test_a_trial_step_writes_nothing(tmp_path: Path) -> None:
    tiny_fit(tmp_path, [EarlyStopping()], fast_dev_run=True)
    assert not list(tmp_path.iterdir())


def test_an_unknown_metric_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'validation/loss'"):
        tiny_fit(tmp_path, [EarlyStopping("validation/los")])
