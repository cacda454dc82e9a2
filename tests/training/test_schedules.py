"""Schedules at their corners."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import jsonargparse
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


EVERY = [
    Constant(2),
    WarmupLinear(2),
    WarmupCosine(2),
    InverseSquareRoot(2),
    OneCycle(),
    WarmupStableDecay(2),
    WarmupStableDecay(2, shape="sqrt"),
]


@pytest.mark.parametrize("schedule", EVERY, ids=lambda schedule: f"{type(schedule).__name__}")
@pytest.mark.parametrize("num_steps", [1, 2, 3, 50])
def test_every_factor_lies_between_0_and_1(schedule: ScheduleConfig, num_steps: int) -> None:
    """One step, a warm-up as long as the run, one step more, and a long run; resumed runs go beyond it."""
    factors = [schedule.multiplier(step, num_steps) for step in range(num_steps + 3)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] > 0


@pytest.mark.parametrize("schedule", [Constant(0), WarmupLinear(0), WarmupCosine(0), WarmupStableDecay(0)])
def test_without_a_warm_up_the_first_step_has_the_full_rate(schedule: ScheduleConfig) -> None:
    assert schedule.multiplier(0, 1) == 1
    assert schedule.multiplier(0, 100) == 1


@pytest.mark.parametrize("schedule", EVERY[:4] + EVERY[5:], ids=lambda schedule: f"{type(schedule).__name__}")
def test_a_warm_up_as_long_as_the_run_only_rises(schedule: ScheduleConfig) -> None:
    longer = dataclasses.replace(schedule, warmup_steps=10, **_without_decay(schedule))
    factors = [longer.multiplier(step, 10) for step in range(10)]
    assert factors == pytest.approx([(step + 1) / 11 for step in range(10)])


def _without_decay(schedule: ScheduleConfig) -> dict[str, float]:
    return {"decay_share": 0} if isinstance(schedule, WarmupStableDecay) else {}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (WarmupCosine(30), WarmupCosine("30 steps")),
        (WarmupCosine(30), WarmupCosine("30")),
        (WarmupCosine(30), WarmupCosine("15%")),
        (WarmupCosine(30), WarmupCosine("120k tokens")),
        (WarmupCosine(30), WarmupCosine("116_001 tokens")),  # a step begun counts whole
        (WarmupLinear(30), WarmupLinear("0.12M tokens")),
        (InverseSquareRoot(30), InverseSquareRoot("15%")),
        (Constant(30), Constant("120,000 tokens")),
        (OneCycle(0.25), OneCycle("25%")),
        (OneCycle(0.25), OneCycle("50 steps")),
        (OneCycle(0.25), OneCycle("0.2M tokens")),
        (WarmupStableDecay(10, 0.2), WarmupStableDecay("40k tokens", "20%")),
        (WarmupStableDecay(10, 0.2), WarmupStableDecay("5%", "40 steps")),
        (WarmupStableDecay(10, 0.2), WarmupStableDecay(10, "160k tokens")),
    ],
    ids=str,
)
def test_lengths_in_steps_tokens_and_shares(one: ScheduleConfig, other: ScheduleConfig) -> None:
    """Of a run of 200 steps with 4,000 tokens each."""
    assert _ours(other.in_steps(4_000), 200) == pytest.approx(_ours(one, 200))


def test_tokens_have_to_be_told_how_many_a_step_holds() -> None:
    with pytest.raises(ConfigError, match="in_steps"):
        WarmupCosine("1M tokens").multiplier(0, 100)
    schedule = WarmupCosine("5%")
    assert schedule.in_steps(100) is schedule


@pytest.mark.parametrize(
    ("length", "named"),
    [
        ("soon", "no length"),
        ("-5 steps", "no length"),
        ("5 miles", "no length"),
        ("150%", "between 0 and 1"),
        ("2.5 steps", "whole number of steps"),
        (float("inf"), "at least 0"),
        (float("nan"), "at least 0"),
    ],
)
def test_what_is_no_length_is_refused(length: str | float, named: str) -> None:
    with pytest.raises(ConfigError, match=rf"warmup_steps=.*{named}"):
        WarmupLinear(length)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schedule", "num_steps"),
    [
        (Constant(11), 10),
        (WarmupCosine(11), 10),
        (WarmupStableDecay(6, 0.5), 10),
        (WarmupStableDecay(0, "11 steps"), 10),
        (OneCycle("11 steps"), 10),
        (WarmupLinear("11k tokens").in_steps(1_000), 10),
    ],
    ids=str,
)
def test_phases_longer_than_the_run_are_refused(schedule: ScheduleConfig, num_steps: int) -> None:
    with pytest.raises(ConfigError, match=f"do not fit into a run of {num_steps} steps"):
        schedule.check_fits(num_steps)
    schedule.check_fits(2 * num_steps)


def test_shares_that_add_up_to_more_than_all_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"warmup_steps=60% \(60 steps\) and decay_share=0.5 \(50 steps\)"):
        WarmupStableDecay("60%", 0.5).check_fits(100)


@pytest.mark.parametrize(
    "schedule",
    [
        Constant(10),
        WarmupStableDecay(5, 0.5),
        WarmupStableDecay(),  # nobody chose its warm-up
        InverseSquareRoot(),
        WarmupStableDecay(0, 1.0),
        OneCycle(),
    ],
    ids=str,
)
def test_phases_that_just_fit_are_not_refused(schedule: ScheduleConfig) -> None:
    schedule.check_fits(10)


@pytest.mark.parametrize(
    "schedule",
    [
        *EVERY,
        Constant("10%"),
        WarmupStableDecay(3, "20 steps"),
        WarmupStableDecay("10%", 0.3),
        WarmupStableDecay(3, 0),
    ],
    ids=str,
)
def test_settled_steps_have_the_same_factor_in_every_longer_run(schedule: ScheduleConfig) -> None:
    settled = schedule.settled_steps(60)
    for longer in (61, 90, 1000):
        assert _ours(schedule, longer)[:settled] == _ours(schedule, 60)[:settled]


def test_null_of_a_command_line_is_the_usual_warm_up() -> None:
    parser = jsonargparse.ArgumentParser()
    parser.add_subclass_arguments(ScheduleConfig, "schedule")
    parsed = parser.parse_args(["--schedule=WarmupCosine", "--schedule.warmup_steps=null"])
    assert parser.instantiate(parsed).schedule == WarmupCosine()


def test_what_is_settled_at_least() -> None:
    """A schedule that claims to depend on everything would pass the test above."""
    assert Constant().settled_steps(60) == InverseSquareRoot().settled_steps(60) == 60
    assert WarmupStableDecay(3, 0.25).settled_steps(60) == 45
    assert WarmupStableDecay(3, "20 steps").settled_steps(60) == 40
    assert WarmupCosine(7).settled_steps(60) == 7
    assert OneCycle().settled_steps(60) == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [("decay_share", 1.5), ("final_share", -0.1), ("warmup_steps", -1), ("shape", "cubic")],
)
def test_mistakes_are_named(option: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        WarmupStableDecay(**{option: value})  # type: ignore[arg-type]
    assert (caught.value.option, caught.value.value) == (option, value)


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
    ("make", "option"),
    [
        (lambda: WarmupLinear(-1), "warmup_steps"),
        (lambda: OneCycle(rise_share=2), "rise_share"),
        (lambda: InverseSquareRoot(-3), "warmup_steps"),
    ],
)
def test_new_schedules_refuse_what_makes_no_sense(make: Callable[[], ScheduleConfig], option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.option == option
