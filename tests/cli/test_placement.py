"""Which device is a process's own, and which numbers the Trainer cannot work with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from command_line import Outcome

from insight.api.placement import device_number, trainer_mistakes


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ("auto", [0, 1]),
        (2, [0, 1]),
        ("2", [0, 1]),
        (-1, [0, 1]),
        (None, [0, 1]),
        ([3, 5], [3, 5]),
        ("3,5", [3, 5]),
        ("3, 5,", [3, 5]),
    ],
)
def test_each_process_has_a_device_of_its_own(given: Any, numbers: list[int]) -> None:
    assert [device_number(given, local_rank) for local_rank in range(2)] == numbers


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("gradient_clip_val", [-1, -0.5, math.nan, math.inf, True]),
        ("accumulate_grad_batches", [0, -1, 1.5, True]),
        ("val_check_interval", [0, 0.0, -1, math.nan, True]),
        ("check_val_every_n_epoch", [0, -1]),
        ("log_every_n_steps", [-1]),
        ("max_steps", [-2]),
        ("min_epochs", [-1]),
        ("limit_val_batches", [-1, math.nan]),
        ("num_nodes", [0]),
    ],
)
def test_numbers_that_the_trainer_cannot_work_with(name: str, values: list[Any]) -> None:
    for value in values:
        (mistake,) = trainer_mistakes({name: value})
        assert (mistake.option, mistake.value, mistake.exit_code) == (f"trainer.{name}", value, 2) or (
            value != value
        )
        assert mistake.remedy.startswith("use for example")


def test_all_of_them_are_told_at_once() -> None:
    wrong = {"gradient_clip_val": -1, "accumulate_grad_batches": 0, "val_check_interval": 0}
    assert len(trainer_mistakes(wrong)) == 3
    assert not trainer_mistakes(
        {"gradient_clip_val": 0, "val_check_interval": "00:01:00:00", "max_steps": -1}
    )


def test_a_clipping_that_would_train_uphill_is_refused(insight: Callable[..., Outcome]) -> None:
    for command in ("check", "fit"):
        outcome = insight(command, "--config", "tiny.yaml", "--trainer.gradient_clip_val", "-1")
        assert outcome.code == 2, outcome.err
        assert "trainer.gradient_clip_val=-1" in outcome.err
