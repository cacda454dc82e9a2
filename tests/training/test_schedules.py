"""Schedules at their corners."""

from __future__ import annotations

import itertools
import math

import pytest

from insight.runtime.errors import ConfigError
from insight.training import Constant, WarmupCosine, WarmupStableDecay


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
