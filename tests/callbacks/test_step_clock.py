from __future__ import annotations

import pytest
from fake_clock import FakeClock

from insight.callbacks.throughput import StepClock


def run(clock: StepClock, now: FakeClock, durations: list[tuple[float, str | None]]) -> None:
    """Steps of half a second each, unless another time is given without a pause."""
    for seconds, pause in durations:
        clock.start_step()
        clock.count_tokens(100)
        now.seconds += 0.5 if pause else seconds
        if pause:
            clock.pause_for(pause)
            now.seconds += seconds
    clock.start_step()


def test_nothing_is_claimed_before_a_step_was_measured() -> None:
    now = FakeClock()
    clock = StepClock(now=now)
    run(clock, now, [(30.0, None), (5.0, None)])  # compiling and warming up
    assert clock.seconds_per_step is None
    assert clock.tokens_per_second is None
    assert clock.seconds_per_validation is None


def test_validations_and_saves_are_told_apart_from_training() -> None:
    now = FakeClock()
    clock = StepClock(now=now)
    steps = [(9.0, None), (9.0, None), *[(0.5, None)] * 6, (4.0, "validation"), (0.5, None), (1.0, "save")]
    run(clock, now, steps)
    assert clock.seconds_per_step == pytest.approx(0.5)
    assert clock.tokens_per_second == pytest.approx(200)
    assert clock.seconds_per_validation == pytest.approx(4.0)
    assert clock.seconds_per_step_for_saving == pytest.approx(1.0 / 11)


def test_a_save_during_a_validation_belongs_to_the_validation() -> None:
    now = FakeClock()
    clock = StepClock(now=now)
    run(clock, now, [(0.5, None)] * 4)
    now.seconds += 0.5
    clock.pause_for("validation")
    now.seconds += 1.5
    clock.pause_for("save")
    now.seconds += 0.5
    clock.start_step()
    assert clock.seconds_per_validation == pytest.approx(2.0)
    assert clock.seconds_per_step == pytest.approx(0.5)
    assert clock.seconds_per_step_for_saving == 0


def test_an_outlier_counts_as_three_medians() -> None:
    now = FakeClock()
    clock = StepClock(window=10, now=now)
    run(clock, now, [*[(1.0, None)] * 11, (60.0, None)])
    assert clock.seconds_per_step == pytest.approx((9 + 3) / 10)


def test_the_window_forgets() -> None:
    now = FakeClock()
    clock = StepClock(window=25, now=now)
    run(clock, now, [*[(5.0, None)] * 10, *[(1.0, None)] * 25])
    assert clock.seconds_per_step == pytest.approx(1.0)
    assert clock.recent_seconds_per_step == pytest.approx(1.0)


def test_steps_that_are_all_saved_are_measured_too() -> None:
    now = FakeClock()
    clock = StepClock(now=now)
    run(clock, now, [(0.2, "save")] * 6)
    assert clock.seconds_per_step == pytest.approx(0.5)
    assert clock.seconds_per_step_for_saving == pytest.approx(0.2)
