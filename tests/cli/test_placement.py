"""Which device is a process's own, and which numbers the Trainer cannot work with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from command_line import Outcome
from lightning.pytorch.strategies import StrategyRegistry

from insight.api.placement import device_number
from insight.api.run_config import value_mistake


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
        ("gradient_clip_val", ["-1", "-0.5", ".nan", ".inf"]),
        ("accumulate_grad_batches", ["0", "-1"]),
        ("val_check_interval", ["0", "0.0", "-1", ".nan"]),
        ("check_val_every_n_epoch", ["0", "-1"]),
        ("max_steps", ["-2"]),
        ("limit_val_batches", ["-1", ".nan"]),
    ],
)
def test_numbers_that_the_trainer_cannot_work_with(
    insight: Callable[..., Outcome], name: str, values: list[str]
) -> None:
    """Lightning would divide by zero, hang, or train uphill."""
    for command in ("fit", "check"):
        for value in values:
            outcome = insight(command, "--config", "tiny.yaml", f"--trainer.{name}={value}")
            assert outcome.code == 2, outcome.err
            assert f"trainer.{name}=" in outcome.err
            assert "use for example" in outcome.err


def test_every_strategy_of_lightning_is_known_by_name() -> None:
    """The early check has a list of its own; each name is allowed, or refused with what to use instead."""
    import insight.training.parallel  # noqa: F401 (registers fsdp2)

    names = ["auto", *StrategyRegistry.available_strategies()]
    mistakes = {name: value_mistake("trainer.strategy", name) for name in names}
    replaced = {name for name, mistake in mistakes.items() if mistake}
    assert all("cannot be used here: use " in str(mistake) for mistake in mistakes.values() if mistake)
    assert {name.partition("_find")[0] for name in replaced} == {
        *("fsdp", "fsdp_cpu_offload", "ddp_spawn", "ddp_fork", "ddp_notebook")
    }
    assert value_mistake("trainer.strategy", "ddp2")
