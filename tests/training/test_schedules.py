"""Schedules at their corners."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from transformers import get_inverse_sqrt_schedule, get_linear_schedule_with_warmup

from insight.runtime.errors import ConfigError
from insight.training import (
    Constant,
    InverseSquareRoot,
    OneCycle,
    ScheduleConfig,
    WarmupCosine,
    WarmupLinear,
    WarmupStableDecay,
)


def test_constant_warms_up_and_stays() -> None:
    schedule = Constant(warmup_steps=3)
    assert [schedule.multiplier(step, 9) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert Constant().multiplier(0, 1) == 1


def test_cosine_follows_the_formula() -> None:
    schedule = WarmupCosine(warmup_steps=10, final_share=0.1)
    assert schedule.multiplier(10, 110) == 1
    assert schedule.multiplier(60, 110) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2)
    assert schedule.multiplier(110, 110) == pytest.approx(0.1)
    assert schedule.multiplier(500, 110) == pytest.approx(0.1)


def test_stable_decay_corners() -> None:
    schedule = WarmupStableDecay(warmup_steps=4, decay_share=0.5)
    rates = [schedule.multiplier(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[4:51] == [1.0] * 47
    assert rates[75] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.02)
    assert rates[100] == 0
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[4:]))


def test_stable_phase_does_not_depend_on_the_length() -> None:
    schedule = WarmupStableDecay(warmup_steps=10, decay_share=0.3)
    assert all(schedule.multiplier(s, 100) == schedule.multiplier(s, 1000) for s in range(70))


def test_square_root_decay_falls_faster_first() -> None:
    linear, root = (WarmupStableDecay(0, 0.5, shape=shape) for shape in ("linear", "sqrt"))
    assert root.multiplier(60, 100) < linear.multiplier(60, 100)
    assert root.multiplier(100, 100) == linear.multiplier(100, 100) == 0


def test_no_decay_and_all_decay() -> None:
    assert WarmupStableDecay(0, 0.0).multiplier(99, 100) == 1
    assert WarmupStableDecay(0, 1.0).multiplier(50, 100) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"decay_share": 1.5}, "decay_share=1.5"),
        ({"final_share": -0.1}, "final_share=-0.1"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
        ({"shape": "cubic"}, "shape='cubic'"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        WarmupStableDecay(**arguments)  # type: ignore[arg-type]


def _rates(make: Callable[[torch.optim.Optimizer], LRScheduler], num_steps: int) -> list[float]:
    """The factors of somebody else's schedule."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = make(optimizer), []
    for _ in range(num_steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        schedule.step()
    return rates


def _ours(schedule: ScheduleConfig, num_steps: int) -> list[float]:
    return [schedule.multiplier(step, num_steps) for step in range(num_steps)]


def test_the_line_is_that_of_transformers_after_the_warm_up() -> None:
    theirs = _rates(lambda optimizer: get_linear_schedule_with_warmup(optimizer, 10, 90), 90)
    assert _ours(WarmupLinear(10), 90)[10:] == pytest.approx(theirs[10:])
    assert WarmupLinear(0, final_share=0.2).multiplier(500, 90) == pytest.approx(0.2)


def test_the_inverse_root_is_that_of_transformers_shifted_by_one_step() -> None:
    # Theirs begins at a rate of 0, a step that teaches nothing.
    theirs = _rates(lambda optimizer: get_inverse_sqrt_schedule(optimizer, 11), 91)
    assert _ours(InverseSquareRoot(10), 90) == pytest.approx(theirs[1:])
    assert InverseSquareRoot(10).multiplier(40, 50) == InverseSquareRoot(10).multiplier(40, 5000)


@pytest.mark.parametrize("num_steps", [2, 10, 100])
def test_one_cycle_is_that_of_torch(num_steps: int) -> None:
    theirs = _rates(lambda optimizer: OneCycleLR(optimizer, max_lr=1.0, total_steps=num_steps), num_steps)
    assert _ours(OneCycle(), num_steps) == pytest.approx(theirs, abs=1e-6)
    assert OneCycle().multiplier(10 * num_steps, num_steps) == pytest.approx(4e-6)


@pytest.mark.parametrize(
    "make", [lambda: WarmupLinear(-1), lambda: OneCycle(rise_share=2), lambda: InverseSquareRoot(-3)]
)
def test_new_schedules_refuse_what_makes_no_sense(make: Callable[[], ScheduleConfig]) -> None:
    with pytest.raises(ConfigError, match="must"):
        make()
