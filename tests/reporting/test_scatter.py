"""Points keep their meaning: the front is the front, names do not overlap, odd values are counted."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from insight.reporting.scatter import (
    _WIDTH,
    Place,
    Point,
    ScatterChart,
    _along,
    _box,
    _frame,
    _overlap,
    front,
    named,
    place_names,
)


def chart_of(*points: Point, **options: object) -> ScatterChart:
    return ScatterChart("chart", "Quality against size", "bits per byte", "MB", points, **options)  # type: ignore[arg-type]


def test_the_front_by_brute_force() -> None:
    generator = np.random.default_rng(0)
    for more_is_better in (False, True):
        points = [Point(str(i), x, y) for i, (x, y) in enumerate(generator.integers(0, 8, (40, 2)))]
        sign = -1 if more_is_better else 1
        best = {
            (point.x, point.y)
            for point in points
            if not any(
                sign * other.x <= sign * point.x
                and other.y <= point.y
                and (other.x, other.y) != (point.x, point.y)
                for other in points
            )
        }
        assert {(point.x, point.y) for point in front(points, more_is_better)} == best


def test_the_front_goes_from_left_to_right() -> None:
    points = [Point("slow", 1, 1.0), Point("fast", 9, 3.0), Point("beaten", 5, 3.5), Point("middle", 5, 2.0)]
    assert [point.label for point in front(points, more_is_better=True)] == ["slow", "middle", "fast"]
    assert [point.label for point in front(points, more_is_better=False)] == ["slow"]


def test_points_on_one_another_share_a_name() -> None:
    points = [Point("bf16", 10, 1.5), Point("bf16 + compile", 10.1, 1.5001), Point("original", 20, 1.4)]
    assert [name for _, name in named(points)] == ["bf16\nbf16 + compile", "original"]


def test_a_difference_of_nothing_looks_like_nothing() -> None:
    """Ten-thousandths of a bit do not fill the chart; a real difference does."""

    def share(second: float) -> float:
        frame = _frame([Point("a", 1.0, 2.0), Point("b", 1.0, second)])
        return (second - 2.0) / (frame.top - frame.bottom)

    assert share(2.0002) < 0.02
    assert share(2.2) == pytest.approx(0.8)


@pytest.mark.parametrize(
    "points",
    [
        (),
        (Point("one", 1.0, 1.0),),
        (Point("one", 1.0, 1.0, (0.9, 1.1), True), Point("two", 2.0, 1.0)),
        (Point("lost", math.nan, 1.0), Point("also", 1.0, math.inf), Point("there", 1.0, 1.0)),
        (Point("spread", 1.0, 1.0, (math.nan, math.inf)),),
        (Point("</script>", 0.0, 0.0), Point("zero", 0.0, 0.0)),
    ],
)
def test_odd_points_become_json(points: tuple[Point, ...]) -> None:
    chart = chart_of(*points)
    json.dumps(chart.to_item(), allow_nan=False)
    assert chart.num_lost == sum(not (math.isfinite(point.x) and math.isfinite(point.y)) for point in points)
    assert chart.description.startswith("Quality against size, bits per byte against MB: ")


def test_every_glyph_says_which_variable_colours_it() -> None:
    chart = chart_of(Point("one", 1.0, 1.0, (0.9, 1.1), True), Point("two", 2.0, 1.2))
    text = json.dumps(chart.to_item())
    assert {"--line-1", "--line-2", "--quiet", "--ink"} <= {name for name in text.split('"') if "--" in name}


SPREAD = [(0.1, 0.5, "int8_dynamic"), (0.5, 0.1, "bf16"), (0.9, 0.9, "int8_static + compile")]
# Three that are close together, as methods of one kind are.
CLOSE = [(0.42, 0.12, "bf16"), (0.5, 0.06, "original"), (0.6, 0.11, "bf16 + compile"), (0.95, 0.4, "int8")]


def cover(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """More than a sliver of the smaller of two names is hidden."""
    areas = [(right - left) * (top - bottom) for left, bottom, right, top in (one, other)]
    return _overlap(one, other) > 0.1 * min(areas)


def boxes(points: list[tuple[float, float, str]], places: list[Place | None]) -> list[tuple[float, ...]]:
    return [_box(*point, place) for point, place in zip(points, places, strict=True) if place]


LINES = [
    (0.3, 0.5, "int8_dynamic\nint8_weight_only\nint8_static"),
    (0.45, 0.5, "bf16"),
    (0.9, 0.5, "original"),
]


@pytest.mark.parametrize("points", [SPREAD, CLOSE, LINES])
def test_no_name_lies_over_another_or_leaves_the_frame(points: list[tuple[float, float, str]]) -> None:
    found = boxes(points, place_names(points))
    assert len(found) == len(points)
    assert not any(cover(one, other) for one, other in itertools.combinations(found, 2))
    assert all(left >= 0 and right <= _WIDTH for left, _, right, _ in found)


def test_one_side_for_all_would_overlap() -> None:
    """The twin: without choosing, names of close points cover one another."""
    found = boxes(CLOSE, [Place(-1, 1)] * len(CLOSE))
    assert any(cover(one, other) for one, other in itertools.combinations(found, 2))


def test_nothing_and_too_much() -> None:
    assert place_names([]) == []
    assert len(place_names([(0.5, 0.5, "x" * 500)] * 30)) == 30


def test_names_do_not_lie_on_the_line() -> None:
    """A line through all points, nearly level, as the front of models that are equally good is."""
    points = [
        (0.3, 0.50, "int8_dynamic"),
        (0.42, 0.505, "int8_static"),
        (0.6, 0.495, "bf16"),
        (0.95, 0.49, "original"),
    ]
    line = [(x, y) for x, y, _ in points]
    for box in boxes(points, place_names(points, line)):
        assert not any(_overlap(box, small) for small in _along(line))
    below = boxes(points, [Place(0, 0)] * len(points))
    assert all(any(_overlap(box, small) for small in _along(line)) for box in below)  # the twin


def test_a_crowd_has_one_name_and_the_chosen_one_keeps_its_own() -> None:
    crowd = [Point(str(size), size, 0.33, is_marked=size == 1683) for size in range(1679, 1686)]
    names = named([Point("257", 257, 1.0), *crowd, Point("2048", 2048, 0.3)])
    assert [name for _, name in names] == ["257", "1683 and 6 more", "2048"]


def test_names_that_find_no_room_are_left_out() -> None:
    """Hundreds of points in a small frame: what is shown can be read, and the required one is shown."""
    generator = np.random.default_rng(1)
    points = [(x, y, "a rather long name") for x, y in generator.random((60, 2)).tolist()]
    places = place_names(points, required={17})
    assert places[17] is not None
    assert 0 < sum(place is not None for place in places) < 60
    assert not any(cover(one, other) for one, other in itertools.combinations(boxes(points, places), 2))


def test_models_have_colours_of_their_own() -> None:
    chart = chart_of(Point("one", 1.0, 1.0, color="--line-1"), Point("two", 2.0, 1.0, color="--line-3"))
    assert {"--line-1", "--line-3"} <= set(json.dumps(chart.to_item()).split('"'))
