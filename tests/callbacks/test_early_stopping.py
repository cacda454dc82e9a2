from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_run import TinyModule, tiny_fit

from insight.callbacks.checkpointing import RunCheckpoint
from insight.callbacks.early_stopping import EarlyStopping
from insight.runtime.errors import ConfigError


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
    stopping = EarlyStopping("validation/scripted", patience=2)
    trainer, _ = tiny_fit(tmp_path, [stopping], max_steps=100)
    assert trainer.global_step == 40
    reason = "validation/scripted has not improved on 1.0000 in 2 validations"
    assert stopping.stopping_reason_message == reason
    assert f"insight: stopping early at step 40: {reason}\n" in capsys.readouterr().err


def test_a_run_that_improves_goes_on(tmp_path: Path, scripted: list[float]) -> None:
    scripted += [5.0, 4.0, 4.5, 3.0, 3.5]
    stopping = EarlyStopping("validation/scripted", patience=2)
    trainer, _ = tiny_fit(tmp_path, [stopping], max_steps=50)
    assert trainer.global_step == 50
    assert stopping.stopping_reason_message is None


@pytest.mark.parametrize(
    ("options", "values", "reason"),
    [
        ({"min_delta": 0.5, "patience": 1}, [3.0, 2.8], "has not improved on 3.0000"),
        ({"stopping_threshold": 1.0}, [3.0, 0.9], "reached 0.9000, past 1.0"),
        ({"divergence_threshold": 5.0}, [3.0, 6.0], "is 6.0000, worse than 5.0"),
        ({}, [3.0, float("nan")], "is nan"),
        ({"mode": "max", "patience": 1}, [3.0, 2.0], "has not improved on 3.0000"),
    ],
)
def test_every_reason_is_a_sentence(
    tmp_path: Path, scripted: list[float], options: dict[str, Any], values: list[float], reason: str
) -> None:
    scripted += [*values, 0.0, 0.0]
    stopping = EarlyStopping("validation/scripted", **options)
    trainer, _ = tiny_fit(tmp_path, [stopping], max_steps=50)
    assert trainer.global_step == 20
    assert reason in str(stopping.stopping_reason_message)


def test_a_resumed_run_counts_on_and_takes_the_new_patience(tmp_path: Path, scripted: list[float]) -> None:
    scripted += [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    last = tmp_path / "checkpoints/last.ckpt"
    tiny_fit(tmp_path, [EarlyStopping("validation/scripted", 2), RunCheckpoint()], max_steps=100)
    stopping = EarlyStopping("validation/scripted", 4)
    trainer, _ = tiny_fit(tmp_path, [stopping, RunCheckpoint()], checkpoint=last, max_steps=100)
    assert trainer.global_step == 50
    assert stopping.wait_count == 4


def test_an_unknown_metric_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'validation/loss'"):
        tiny_fit(tmp_path, [EarlyStopping("validation/los")])


@pytest.mark.parametrize("options", [{"patience": 0}, {"mode": "up"}])
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="EarlyStopping"):
        EarlyStopping(**options)
