"""Names stand beside their points: inside the frame, not over one another where there is room."""

from __future__ import annotations

import itertools

import pytest

from insight.reporting.label_placement import Place, _box, _overlap, place_names

SPREAD = [(0.1, 0.5, "int8_dynamic"), (0.5, 0.1, "bf16"), (0.9, 0.9, "int8_static + compile")]
# Three that are close together, as methods of one kind are.
CLOSE = [(0.42, 0.12, "bf16"), (0.5, 0.06, "original"), (0.6, 0.11, "bf16 + compile"), (0.95, 0.4, "int8")]


def cover(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """More than a sliver of the smaller of two names is hidden."""
    areas = [(right - left) * (top - bottom) for left, bottom, right, top in (one, other)]
    return _overlap(one, other) > 0.1 * min(areas)


def boxes(points: list[tuple[float, float, str]], places: list[Place]) -> list[tuple[float, ...]]:
    return [_box(*point, place) for point, place in zip(points, places, strict=True)]


LINES = [
    (0.3, 0.5, "int8_dynamic\nint8_weight_only\nint8_static"),
    (0.45, 0.5, "bf16"),
    (0.9, 0.5, "original"),
]


@pytest.mark.parametrize("points", [SPREAD, CLOSE, LINES])
def test_no_name_lies_over_another_or_leaves_the_frame(points: list[tuple[float, float, str]]) -> None:
    found = boxes(points, place_names(points))
    assert not any(cover(one, other) for one, other in itertools.combinations(found, 2))
    assert all(left >= 0 and right <= 400 for left, _, right, _ in found)


def test_one_side_for_all_would_overlap() -> None:
    """The twin: without choosing, names of close points cover one another."""
    found = boxes(CLOSE, [Place(is_left=True, is_below=False)] * len(CLOSE))
    assert any(cover(one, other) for one, other in itertools.combinations(found, 2))


def test_nothing_and_too_much() -> None:
    assert place_names([]) == []
    assert len(place_names([(0.5, 0.5, "x" * 500)] * 30)) == 30
