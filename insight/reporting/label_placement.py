"""Where the names of points go on a chart, so that they can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# A chart as wide as half of the page, in pixels, and the size of its letters; near enough for any width.
_WIDTH, _HEIGHT = 400.0, 220.0
_LETTER, _LINE = 6.3, 14.0
_GAP_X, _GAP_Y = 9.0, 4.0
_POINT = 6.0
_PASSES = 4

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Place:
    """On which side of its point a name stands.

    Args:
        is_left: It ends left of the point; otherwise it begins right of it.
        is_below: It stands below the height of the point; otherwise above.
    """

    is_left: bool
    is_below: bool

    @property
    def x_offset(self) -> float:
        """Pixels from the point to the near end of the name."""
        return -_GAP_X if self.is_left else _GAP_X

    @property
    def y_offset(self) -> float:
        """Pixels from the point down to the near edge of the name."""
        return _GAP_Y if self.is_below else -_GAP_Y


_PLACES = tuple(Place(is_left, is_below) for is_below in (False, True) for is_left in (False, True))


def place_names(points: Sequence[tuple[float, float, str]]) -> list[Place]:
    """A place for every name: where it covers least of the points and of the other names.

    One name after the other chooses among the four places, a few times over, since the first ones do not
    know yet where the later ones go.

    Args:
        points: Horizontal and vertical place of each as shares of the frame, from 0 (left, bottom) to 1,
            and its name, which may have several lines.
    """
    dots = [_around(x, y) for x, y, _ in points]
    chosen: dict[int, Place] = {}
    for _ in range(_PASSES):
        for index, point in enumerate(points):
            names = [_box(*points[other], place) for other, place in chosen.items() if other != index]
            taken = [*dots, *names]
            chosen[index] = min(_PLACES, key=lambda place: _cost(_box(*point, place), taken))
    return [chosen[index] for index in range(len(points))]


def _around(x: float, y: float) -> Box:
    middle_x, middle_y = x * _WIDTH, y * _HEIGHT
    return (middle_x - _POINT, middle_y - _POINT, middle_x + _POINT, middle_y + _POINT)


def _box(x: float, y: float, name: str, place: Place) -> Box:
    lines = name.split("\n")
    width, height = _LETTER * max(map(len, lines)), _LINE * len(lines)
    near_x, near_y = x * _WIDTH + place.x_offset, y * _HEIGHT - place.y_offset
    left = near_x - width if place.is_left else near_x
    bottom = near_y - height if place.is_below else near_y
    return (left, bottom, left + width, bottom + height)


def _cost(box: Box, taken: Sequence[Box]) -> float:
    """Square pixels that are covered or, worse, beyond the frame."""
    frame = (0.0, 0.0, _WIDTH, _HEIGHT)
    outside = (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, frame)
    return 10 * outside + sum(_overlap(box, other) for other in taken)


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)
