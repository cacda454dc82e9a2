"""Curves keep their meaning when they are smoothed, thinned or broken."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from insight.reporting.charts import MAX_POINTS, Chart, Line, _thinned, smooth
from insight.reporting.run_files import Curve


def make_curve(*values: float) -> Curve:
    return Curve(tuple(range(len(values))), tuple(float(index) for index in range(len(values))), values)


def chart_of(*values: float, **options: object) -> Chart:
    return Chart("chart", "Loss", "nats", (Line("training", make_curve(*values), "--line-1"),), **options)  # type: ignore[arg-type]


def test_smoothing_is_the_mean_around_each_point() -> None:
    values = np.random.default_rng(0).normal(size=400)
    smoothed = smooth(make_curve(*values)).values
    reach = 6  # 3% of 400 points, half on each side
    for index in range(400):
        left = min(reach, index)
        assert smoothed[index] == pytest.approx(values[index - left : index + left + 1].mean())


def test_smoothing_passes_over_what_is_not_finite() -> None:
    values = [1.0] * 50 + [math.nan, math.inf] + [1.0] * 50
    smoothed = smooth(make_curve(*values)).values
    assert all(value == pytest.approx(1.0) for value in smoothed[:50] + smoothed[52:])
    assert math.isnan(smoothed[50])
    assert math.isnan(smoothed[51])


def test_thinning_keeps_the_mean_and_the_ends() -> None:
    steps, seconds, values = _thinned(make_curve(*np.arange(2500.0)))
    assert len(steps) == len(seconds) == len(values) <= MAX_POINTS
    assert values[:2] == [1.0, 4.0]  # means of 0..2 and 3..5
    assert steps == values


@pytest.mark.parametrize(
    "values", [(1.0,), (math.nan,), (math.nan, math.inf), (1.0, math.nan, 2.0), (0.0, 0.0)]
)
@pytest.mark.parametrize("options", [{}, {"logarithmic": True}, {"from_zero": True}, {"top": 1.5}])
def test_odd_curves_become_json(values: tuple[float, ...], options: dict[str, object]) -> None:
    chart = chart_of(*values, **options)
    json.dumps(chart.to_item(), allow_nan=False)
    assert chart.description.startswith("Loss, nats")
    assert chart.num_lost == sum(not math.isfinite(value) for value in values)


def test_lines_without_points_are_left_out() -> None:
    assert chart_of().lines == ()


def test_more_above_the_frame() -> None:
    assert chart_of(9.0, 2.0, top=3.0).has_more_above
    assert not chart_of(2.5, 2.0, top=3.0).has_more_above
    assert not chart_of(9.0, 2.0).has_more_above
