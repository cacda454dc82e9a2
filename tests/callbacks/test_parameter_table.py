"""The table of parameter groups, and the schedule that must fit into the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_run import TinySchedule, tiny_fit
from torch import nn

from insight.callbacks import ParameterTable, ScheduleCheck
from insight.callbacks.start_and_end import parameter_table
from insight.reporting import read_run_info, update_run_info
from insight.runtime.errors import ConfigError
from insight.runtime.messages import aligned
from insight.training import Constant, WarmupStableDecay


def group(role: str, numbers: int, rate: float, **options: float) -> dict[str, object]:
    weight = nn.Parameter(torch.zeros(numbers))
    return {"role": role, "params": [weight], "lr": 0.0, "initial_lr": rate, **options}


def test_roles_are_rows_with_the_range_of_their_rates() -> None:
    groups = [
        group("hidden", 1500, 0.02, weight_decay=0.1),
        group("hidden", 1500, 0.01, weight_decay=0.1),
        group("head", 7, 0.003),
    ]
    assert parameter_table(groups, num_frozen=40) == [
        ("parameters", "numbers", "learning rate", "weight decay"),
        ("hidden", "3,000", "0.01 to 0.02", "0.1"),
        ("head", "7", "0.003", "0"),
        ("frozen", "40", "0", "0"),
    ]


def test_columns_are_aligned() -> None:
    lines = aligned(parameter_table([group("hidden", 1500, 0.02), group("head", 7, 1e-5)])).splitlines()
    assert lines == [
        "parameters  numbers  learning rate  weight decay",
        "hidden        1,500           0.02             0",
        "head              7          1e-05             0",
    ]


def test_it_is_printed_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    update_run_info(tmp_path / "run.json", started="now")
    _, module = tiny_fit(tmp_path, [ParameterTable()], max_steps=1)
    count = f"{sum(p.numel() for p in module.parameters()):,}"
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("insight: all")]
    assert line.split()[1:] == ["all", count, "0.05", "0.01"]
    described = read_run_info(tmp_path / "run.json")["parameter_groups"]
    assert described == {"all": f"{count}, learning rate 0.05, weight decay 0.01"}


def test_a_schedule_longer_than_the_run_ends_it_before_its_first_step(tmp_path: Path) -> None:
    trained: list[int] = []

    class Count(ScheduleCheck):
        def on_train_batch_end(self, trainer: object, *_: object) -> None:
            trained.append(1)

    with pytest.raises(ConfigError, match=r"warmup_steps=4 .* and decay_share=0.5 .* into a run of 6 steps"):
        tiny_fit(tmp_path, [Count()], max_steps=6, schedule=WarmupStableDecay(4, 0.5))
    assert not trained
    for fits in (Constant(), TinySchedule()):
        tiny_fit(tmp_path, [Count()], max_steps=6, schedule=fits)
    assert len(trained) == 12
