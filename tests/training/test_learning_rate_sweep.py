"""A sweep over learning rates, read where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from insight.training.schedules import ExponentialSweep, has_diverged, judge_sweep

NUM_STEPS = 100
SWEEP = ExponentialSweep()
MULTIPLIERS = [SWEEP.multiplier(step, NUM_STEPS) for step in range(NUM_STEPS)]


def test_the_rate_grows_by_one_factor_from_end_to_end() -> None:
    factors = np.array(MULTIPLIERS[1:]) / np.array(MULTIPLIERS[:-1])
    assert factors == pytest.approx(factors[0])
    assert MULTIPLIERS[0] == pytest.approx(0.01)
    assert MULTIPLIERS[-1] == pytest.approx(100.0)
    assert SWEEP.multiplier(0, 1) == pytest.approx(0.01)


@pytest.mark.parametrize("steepest", [0.1, 1.0, 5.0])
def test_a_planted_fall_is_found_in_noise(steepest: float) -> None:
    """A logistic fall in the logarithm of the rate is steepest in its middle."""
    distance = np.log(MULTIPLIERS) - math.log(steepest)
    losses = 5.0 - 2.0 / (1 + np.exp(-3 * distance)) + np.random.default_rng(0).normal(0, 0.02, NUM_STEPS)
    found = judge_sweep(MULTIPLIERS, losses.tolist())
    assert found.steepest == pytest.approx(steepest, rel=0.35)
    assert found.lowest_loss is not None
    assert found.lowest_loss > steepest
    assert found.diverged is None


def quadratic_losses(curvature: float, rate: float) -> list[float]:
    """Gradient descent by torch on ``curvature / 2 · |x|²``; its steps are too long from 2 / curvature on."""
    x = torch.ones(8, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([x], lr=rate)
    losses: list[float] = []
    for multiplier in MULTIPLIERS:
        optimizer.param_groups[0]["lr"] = rate * multiplier
        loss = curvature / 2 * (x**2).sum()
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        if has_diverged(losses):
            break
        optimizer.step()
    return losses


@pytest.mark.parametrize(("curvature", "rate"), [(1.0, 1.0), (10.0, 0.01), (0.05, 1.0)])
def test_on_a_quadratic_the_answer_lies_below_the_limit(curvature: float, rate: float) -> None:
    found = judge_sweep(MULTIPLIERS, quadratic_losses(curvature, rate))
    limit = 2 / curvature / rate
    assert found.steepest is not None
    assert limit / 100 < found.steepest < limit


def test_twice_the_rate_halves_the_answer() -> None:
    one, two = (judge_sweep(MULTIPLIERS, quadratic_losses(1.0, rate)).steepest for rate in (0.2, 0.4))
    assert one is not None
    assert two is not None
    assert one / two == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize(
    "losses", [[3.0] * 100, np.linspace(3, 3.5, 100).tolist(), [3.0, float("nan")], [3.0]]
)
def test_where_nothing_falls_nothing_is_said(losses: list[float]) -> None:
    assert judge_sweep(MULTIPLIERS[: len(losses)], losses).steepest is None


def test_divergence_is_told_and_left_out() -> None:
    losses = np.linspace(3, 2, 60).tolist()
    found = judge_sweep(MULTIPLIERS[:61], [*losses, 50.0])
    assert found.diverged == pytest.approx(MULTIPLIERS[60])
    assert found.steepest is not None
    assert found.steepest < MULTIPLIERS[60]
    assert judge_sweep(MULTIPLIERS[:61], [*losses, float("nan")]).diverged == pytest.approx(MULTIPLIERS[60])
    assert has_diverged([3.0, float("nan")])
    assert not has_diverged([3.0, 3.1])
