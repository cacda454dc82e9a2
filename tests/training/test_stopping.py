"""Stopping criteria on synthetic curves whose answer is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from scipy import optimize, stats

from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError
from insight.training.stopping import (
    AllOf,
    AnyOf,
    Criterion,
    Divergence,
    DurationBudget,
    ExpectedGain,
    GrowingGap,
    History,
    Patience,
    Plateau,
    TargetReached,
    TokenBudget,
    Validation,
    fit_power_law,
    single_advice,
)


def _history(
    values: Iterable[float], training: Iterable[float] | None = None, num_planned_steps: int | None = None
) -> History:
    values = list(values)
    beside: list[float | None] = [None] * len(values) if training is None else list(training)
    points = [
        Validation(100 * (i + 1), 1000 * (i + 1), value, other)
        for i, (value, other) in enumerate(zip(values, beside, strict=True))
    ]
    return History(tuple(points), num_planned_steps)


def _stops_at(criterion: Criterion, history: History) -> int | None:
    """Validations after which the run would have ended."""
    for stop in range(1, len(history.validations) + 1):
        if criterion.judge(History(history.validations[:stop], history.num_planned_steps)).stop:
            return stop
    return None


def _noisy(values: np.ndarray, scale: float, seed: int = 0) -> np.ndarray:
    return values + np.random.default_rng(seed).normal(0, scale, len(values))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_a_plateau_is_judged_by_the_steepest_fall_in_the_interval(seed: int, confidence: float) -> None:
    generator = np.random.default_rng(seed)
    values = np.round(-0.3 * np.arange(20.0) + generator.normal(0, 2, 20), 1)
    figures = Plateau(20, confidence=confidence).judge(_history(values)).figures
    theirs = stats.theilslopes(values, np.arange(20.0), alpha=confidence)
    assert figures["fall"] == pytest.approx(-19 * theirs.slope)
    assert figures["most_fall"] == pytest.approx(-19 * theirs.low_slope)


def test_outliers_do_not_turn_the_line() -> None:
    values = -0.1 * np.arange(12.0)
    values[[2, 9]] = 50.0
    assert Plateau(12).judge(_history(values)).figures["fall"] == pytest.approx(1.1)


@pytest.mark.parametrize(("floor", "scale", "exponent"), [(1.5, 4.0, 0.4), (0.0, 3.0, 0.1), (2.0, 30.0, 1.0)])
def test_a_power_law_is_found_again(floor: float, scale: float, exponent: float) -> None:
    x = np.linspace(100, 3000, 30)
    y = floor + scale * x**-exponent
    found = fit_power_law(x, y)
    assert found.at(np.array([10_000.0])) == pytest.approx(floor + scale * 10_000.0**-exponent, abs=1e-3)
    assert found.exponent == pytest.approx(exponent, rel=0.03)


def test_the_fit_is_as_good_as_that_of_scipy() -> None:
    x = np.linspace(100, 3000, 30)
    y = _noisy(1.5 + 4.0 * x**-0.4, 0.003)
    ours = fit_power_law(x, y)
    theirs, _ = optimize.curve_fit(
        lambda t, floor, scale, power: floor + scale * t**-power, x, y, p0=(1.0, 3.0, 0.5), bounds=(0, 50)
    )
    error = float(np.sum((theirs[0] + theirs[1] * x ** -theirs[2] - y) ** 2))
    assert float(np.sum((ours.at(x) - y) ** 2)) <= error * 1.001


NAN = float("nan")


@pytest.mark.parametrize(
    ("criterion", "values", "stops_at"),
    [
        (Patience(2), [NAN, 0.9, 0.8], None),
        (Patience(2), [NAN, NAN], 2),
        (Patience(2), [0.9, NAN, 0.8, NAN, NAN], 5),
        (Patience(2), [float("inf"), float("inf"), 1.0], 2),
        (Patience(2, min_delta=0.1, relative=True), [NAN, 0.9, 0.7, 0.5], None),
        (TargetReached(1.0), [NAN, 2.0, NAN], None),
        (Plateau(4), [NAN, 3.0, 3.0, NAN, 3.0], None),
        (Plateau(4), [NAN, 3.0, 3.0, NAN, 3.0, 3.0], 6),
        (Divergence(), [1.0, NAN], 2),
    ],
)
def test_what_is_no_number_is_no_improvement_and_hides_none(
    criterion: Criterion, values: list[float], stops_at: int | None
) -> None:
    assert _stops_at(criterion, _history(values)) == stops_at
    assert "nan" not in Patience(2).judge(_history(values)).evidence


def test_patience_counts_from_the_best() -> None:
    assert _stops_at(Patience(3), _history([5, 4, 4.5, 3, 3.1, 3.2, 3.3])) == 7
    assert _stops_at(Patience(3), _history([5, 4, 3, 2, 1])) is None


def test_patience_takes_absolute_and_relative_steps() -> None:
    falling = [10.0, 9.95, 9.9, 9.85]
    assert _stops_at(Patience(2), _history(falling)) is None
    assert _stops_at(Patience(2, min_delta=0.2), _history(falling)) == 3
    assert _stops_at(Patience(2, min_delta=0.02, relative=True), _history(falling)) == 3
    assert _stops_at(Patience(2, min_delta=0.002, relative=True), _history(falling)) is None


def test_a_plateau_is_found_and_a_slope_is_not() -> None:
    falling = np.concatenate([np.linspace(4, 2, 15), np.full(15, 2.0)])
    stop = _stops_at(Plateau(8, min_gain=0.01), _history(_noisy(falling, 0.001)))
    assert stop is not None
    assert 19 <= stop <= 24
    assert _stops_at(Plateau(8, min_gain=0.01), _history(_noisy(np.linspace(4, 2, 30), 0.02))) is None


def test_noise_alone_is_rarely_a_plateau() -> None:
    """Where the interval still allows a fall that is worth it, the run goes on: 5 in 100 are misjudged."""
    criterion = Plateau(8, min_gain=0.001, confidence=0.9)
    stopped = [criterion.judge(_history(_noisy(np.full(8, 2.0), 0.2, seed))).stop for seed in range(200)]
    assert sum(stopped) <= 20


def test_a_growing_gap_stops_only_when_validation_no_longer_falls() -> None:
    steps = np.arange(20)
    training = _noisy(3 - 0.1 * steps, 0.005)
    rising = _noisy(np.where(steps < 10, 3 - 0.05 * steps, 2.5 + 0.03 * (steps - 10)), 0.005, seed=1)
    stop = _stops_at(GrowingGap(6), _history(rising, training))
    assert stop is not None
    assert 12 <= stop <= 17
    falling = _noisy(3 - 0.05 * steps, 0.005, seed=1)  # the gap grows, and validation still gains
    assert _stops_at(GrowingGap(6), _history(falling, training)) is None
    level = _noisy(np.full(20, 2.5), 0.005, seed=1)  # nothing is learnt, nothing by heart either
    assert _stops_at(GrowingGap(6), _history(level, level - 0.1)) is None


@pytest.mark.slow
def test_the_expected_gain_knows_how_far_the_run_is_from_its_floor() -> None:
    steps = 100 * np.arange(1, 41)
    slow = _noisy(1.5 + 20 * steps**-0.5, 0.002)
    assert _stops_at(ExpectedGain(0.02), _history(slow, num_planned_steps=20_000)) is None
    fast = _noisy(1.5 + 3e4 * steps**-2.0, 0.002)
    stop = _stops_at(ExpectedGain(0.02), _history(fast, num_planned_steps=20_000))
    assert stop is not None
    # 3e4 / steps ** 2 is under 0.02 from step 1,225 on.
    assert 12 <= stop <= 22


def test_the_interval_of_the_gain_holds_the_true_one() -> None:
    steps = 100 * np.arange(1, 31)
    truth = 1.5 + 20 * steps**-0.5
    true_gain = truth[-1] - (1.5 + 20 * 10_000**-0.5)
    held = 0
    for seed in range(20):
        history = _history(_noisy(truth, 0.004, seed), num_planned_steps=10_000)
        held += ExpectedGain(0.01).judge(history).figures["most_gain"] >= true_gain
    assert held >= 16  # an upper end of 95%; 15 or fewer have a chance of 0.3%


def test_without_a_plan_there_is_nothing_to_draw_on_to() -> None:
    steps = 100 * np.arange(1, 21)
    flat = 1.5 + 0 * steps
    assert _stops_at(ExpectedGain(0.02), _history(flat)) is None
    assert _stops_at(ExpectedGain(0.02, num_steps=5000), _history(flat)) == 8


def test_marks() -> None:
    assert _stops_at(TargetReached(2.0), _history([3, 2.5, 2.0, 1.0])) == 3
    assert _stops_at(Divergence(2.0), _history([3, 2, 3.9, 4.1])) == 4
    assert _stops_at(Divergence(), _history([3, float("inf")])) == 2
    assert _stops_at(TokenBudget(3000), _history([3, 3, 3, 3])) == 3


def test_hours_count_where_they_are_known() -> None:
    validations = tuple(Validation(i, i, 3.0, seconds=1800.0 * i) for i in range(1, 6))
    assert _stops_at(DurationBudget(1.5), History(validations)) == 3
    assert _stops_at(DurationBudget(3.0), History(validations)) is None
    assert _stops_at(DurationBudget(1e-9), _history([3, 3])) is None


@pytest.mark.parametrize("seed", range(3))
def test_the_trend_that_is_drawn_is_that_of_scipy(seed: int) -> None:
    values = _noisy(np.linspace(3, 2.8, 8), 0.02, seed)
    (line,) = Plateau(8, confidence=0.9).judge(_history(values)).lines
    steps = 100.0 * np.arange(1, 9)
    theirs = stats.theilslopes(values, steps, alpha=0.9, method="joint")
    assert line.steps == (100.0, 450.0, 1500.0)
    assert line.values == pytest.approx([theirs.intercept + theirs.slope * step for step in line.steps])
    run = line.steps[2] - line.steps[1]
    ends = sorted(line.values[1] + slope * run for slope in (theirs.low_slope, theirs.high_slope))
    assert (line.low[2], line.high[2]) == pytest.approx(tuple(ends))
    assert line.low[1] == line.high[1] == line.values[1]


def test_the_curve_that_is_drawn_is_the_one_that_was_judged() -> None:
    steps = 100 * np.arange(1, 31)
    history = _history(_noisy(1.5 + 20 * steps**-0.5, 0.004), num_planned_steps=9000)
    verdict = ExpectedGain(0.01).judge(history)
    law, floor = verdict.lines
    now = np.interp(3000.0, law.steps, law.values)
    assert now - law.values[-1] == pytest.approx(verdict.figures["gain"], rel=0.02)
    assert floor.values == (verdict.figures["floor"],) * 2
    assert law.steps[-1] == 9000
    assert all(low <= value <= high for low, value, high in zip(law.low, law.values, law.high, strict=True))


def test_several_criteria_keep_their_answers_apart() -> None:
    patience, target, tokens = Patience(2), TargetReached(2.5), TokenBudget(10**9)
    criterion = AnyOf((AllOf((patience, target)), tokens))
    verdict = criterion.judge(_history([3, 2, 2, 2, 2]))
    answers = [(single, answer.stop) for single, answer in single_advice(criterion, verdict)]
    assert answers == [(patience, True), (target, True), (tokens, False)]
    assert [single for single, _ in single_advice(patience, patience.judge(_history([3])))] == [patience]


def test_any_and_all() -> None:
    history = _history([3, 2, 2, 2, 2])
    patience, target = Patience(2), TargetReached(2.5)
    assert _stops_at(AnyOf((patience, target)), history) == 2
    assert _stops_at(AllOf((patience, target)), history) == 4
    assert "target" not in AnyOf((patience, TargetReached(0.0))).judge(history).evidence


def test_the_same_history_gives_the_same_verdict_and_criteria_travel_as_json() -> None:
    history = _history(_noisy(np.linspace(3, 2, 20), 0.01), num_planned_steps=4000)
    criterion = AnyOf((ExpectedGain(), Plateau(), AllOf((Patience(), GrowingGap()))))
    again = component_from_dict(criterion.to_dict())
    assert again == criterion
    assert isinstance(again, Criterion)
    assert again.judge(history) == criterion.judge(history)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Patience(0),
        lambda: Patience(1, min_delta=-1),
        lambda: Plateau(3),
        lambda: Plateau(confidence=1.0),
        lambda: GrowingGap(2),
        lambda: ExpectedGain(0.0),
        lambda: ExpectedGain(min_validations=3),
        lambda: ExpectedGain(num_steps=0),
        lambda: Divergence(1.0),
        lambda: TokenBudget(0),
        lambda: DurationBudget(0),
        lambda: DurationBudget(float("inf")),
        lambda: AnyOf(()),
        lambda: AllOf(()),
    ],
)
def test_bad_numbers_are_one_line_with_a_remedy(make: Callable[[], Criterion]) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.option
    assert caught.value.remedy
