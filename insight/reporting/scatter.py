"""Bokeh charts of named points (e.g. quality against size) with their Pareto front."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from bokeh.core.types import ID
from bokeh.embed import json_item
from bokeh.models import ColumnDataSource, HoverTool, Range1d

from insight.reporting.charts import Line, empty_plot, tooltip

# The chart on a telephone, the narrowest, in pixels, and the size of its letters; others have more room.
_WIDTH, _HEIGHT = 300.0, 220.0
_LETTER, _LINE = 6.3, 14.0
_GAP = 9.0
_POINT = 6.0
_PASSES = 4
# A name is left out if more than this share of it is covered; the tooltip still has it.
_MOST_HIDDEN = 0.1
# The dashed line counts as boxes of this half height, one per this many pixels.
_LINE_HALF, _LINE_STEP = 3.0, 6.0

Box = tuple[float, float, float, float]


class Place(NamedTuple):
    """The side of its point that a name is on: ``x`` is -1 (left), 0 or 1, and ``y`` -1 (below), 0 or 1."""

    x: int
    y: int

    @property
    def offset(self) -> tuple[float, float]:
        """Pixels right and down from the point to the near end, or to the centre, of the name."""
        return self.x * (_GAP if self.y == 0 else _GAP / 2), -self.y * _GAP * 0.9


_PLACES = [Place(x, y) for y, sides in ((1, (1, -1, 0)), (-1, (1, -1, 0)), (0, (1, -1))) for x in sides]


def place_names(
    points: Sequence[tuple[float, float, str]],
    line: Sequence[tuple[float, float]] = (),
    required: Collection[int] = (),
) -> list[Place | None]:
    """Place every name where it covers least of the points, the line and the other names.

    Points and the corners of the line, which names should not cover, are shares of the frame, from 0 (left,
    bottom) to 1; a name may have several lines. Each name in turn takes the best of eight places, in several
    rounds, since the first names do not know where the later ones go. A name without room is left out, except
    for the ``required`` indices.
    """
    dots = [_around(x, y, _POINT) for x, y, _ in points]
    drawn = [*dots, *_along(line)]
    chosen: dict[int, Place] = {}
    for _ in range(_PASSES):
        for index, point in enumerate(points):
            taken = [_box(*points[other], place) for other, place in chosen.items() if other != index]
            taken += drawn
            others = [dot for number, dot in enumerate(dots) if number != index]
            chosen[index] = min(_PLACES, key=lambda place: _cost(_box(*point, place), taken, others))
    shown: dict[int, Box] = {}
    for index in sorted(chosen, key=lambda index: index not in required):
        box = _box(*points[index], chosen[index])
        hidden = sum(_overlap(box, other) for other in shown.values())
        if index in required or hidden <= _MOST_HIDDEN * _overlap(box, box):
            shown[index] = box
    return [chosen[index] if index in shown else None for index in range(len(points))]


def _along(line: Sequence[tuple[float, float]]) -> list[Box]:
    """Small boxes that cover a line."""
    boxes = []
    for (x1, y1), (x2, y2) in itertools.pairwise(line):
        count = max(1, round(math.hypot((x2 - x1) * _WIDTH, (y2 - y1) * _HEIGHT) / _LINE_STEP))
        shares = [step / count for step in range(count + 1)]
        boxes += [_around(x1 + s * (x2 - x1), y1 + s * (y2 - y1), _LINE_HALF) for s in shares]
    return boxes


def _around(x: float, y: float, half: float) -> Box:
    middle_x, middle_y = x * _WIDTH, y * _HEIGHT
    return (middle_x - half, middle_y - half, middle_x + half, middle_y + half)


def _box(x: float, y: float, name: str, place: Place) -> Box:
    lines = name.split("\n")
    width, height = _LETTER * max(map(len, lines)), _LINE * len(lines)
    right, down = place.offset
    left = x * _WIDTH + right - width * (1 - place.x) / 2
    bottom = y * _HEIGHT - down - height * (1 - place.y) / 2
    return (left, bottom, left + width, bottom + height)


def _cost(box: Box, taken: Sequence[Box], others: Sequence[Box]) -> float:
    """Square pixels that a name covers, has beyond the frame (weighted more) or has near other points."""
    frame = (0.0, 0.0, _WIDTH, _HEIGHT)
    outside = (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, frame)
    around = (box[0] - _GAP, box[1] - _GAP, box[2] + _GAP, box[3] + _GAP)
    mistaken = sum(_overlap(around, dot) for dot in others)  # it could be taken for their name
    return 10 * outside + sum(_overlap(box, other) for other in taken) + mistaken


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


# Points closer than these shares of the frame get one name, since two names would overlap.
_NEAR_X, _NEAR_Y = 0.04, 0.06
_MOST_NAMES = 3
# Room around the points, as shares of their span.
_PADDING_X, _PADDING_Y = 0.08, 0.25
# The least span of the vertical axis, as a share of its values.
_LEAST_SPAN = 0.01


@dataclass(frozen=True)
class Point:
    """One named point; the smaller ``y`` is better, and ``spread`` is the interval of ``y``, if known.

    A marked point is highlighted. ``color`` is a CSS variable; if it is empty, the chart chooses.
    """

    label: str
    x: float
    y: float
    spread: tuple[float, float] | None = None
    is_marked: bool = False
    color: str = ""

    @property
    def drawn_color(self) -> str:
        """The CSS variable of its colour."""
        return self.color or ("--line-2" if self.is_marked else "--line-1")

    def end(self, index: int) -> float:
        """One end of the interval, or the value where it is not known."""
        end = self.spread[index] if self.spread else self.y
        return end if math.isfinite(end) else self.y


@dataclass(frozen=True)
class ScatterChart:
    """Points with names and a caption as in a :class:`Chart`; those that are not finite are counted only.

    ``more_is_better`` tells whether larger ``x`` are better.
    """

    identifier: str
    title: str
    unit: str
    x_label: str
    points: tuple[Point, ...]
    more_is_better: bool = False
    lines: ClassVar[tuple[Line, ...]] = ()  # no legend: the names are beside the points
    has_more_above: ClassVar[bool] = False

    @property
    def description(self) -> str:
        """Text alternative of the chart."""
        parts = [f"{point.label} at {point.x:.4g}, {point.y:.4g}" for point in self._drawn]
        return f"{self.title}, {self.unit} against {self.x_label}: {'; '.join(parts) or 'no finite values'}"

    @property
    def num_lost(self) -> int:
        """Number of points that are left out because they are not finite."""
        return len(self.points) - len(self._drawn)

    def to_item(self) -> dict[str, Any]:
        """The chart as the JSON object that ``Bokeh.embed.embed_item`` takes."""
        plot = empty_plot(300)
        plot.xaxis.axis_label = self.x_label
        plot.xaxis.axis_label_text_font_size = "12px"
        plot.xaxis.axis_label_text_font_style = "normal"
        frame, best = _frame(self._drawn), front(self._drawn, self.more_is_better)
        plot.x_range = Range1d(start=0, end=frame.right)
        plot.y_range = Range1d(start=frame.bottom, end=frame.top)
        source = {"x": [point.x for point in best], "y": [point.y for point in best]}
        line = plot.line("x", "y", source=ColumnDataSource(source), line_width=1.5, line_dash="dashed")
        line.glyph.tags = ["--quiet"]
        self._draw_points(plot)
        self._draw_names(plot, frame, best)
        return dict(json_item(plot, ID(self.identifier)))

    @property
    def _drawn(self) -> list[Point]:
        return [point for point in self.points if math.isfinite(point.x) and math.isfinite(point.y)]

    def _draw_points(self, plot: Any) -> None:
        for color in dict.fromkeys(point.drawn_color for point in self._drawn):
            points = [point for point in self._drawn if point.drawn_color == color]
            columns = {
                "x": [point.x for point in points],
                "y": [point.y for point in points],
                "low": [point.end(0) for point in points],
                "high": [point.end(1) for point in points],
                "label": [point.label for point in points],
            }
            source = ColumnDataSource(columns)
            spread = plot.segment("x", "low", "x", "high", source=source, line_width=1.5)
            drawn = plot.scatter("x", "y", source=source, size=9, line_alpha=0)
            spread.glyph.tags = drawn.glyph.tags = [color]
            # Names come from the data, which Bokeh escapes.
            rows = (("", "@label"), (self.unit, "@y{0.0000}"), (self.x_label, "@x{0,0.00}"))
            plot.add_tools(HoverTool(renderers=[drawn], tooltips=tooltip(rows)))

    def _draw_names(self, plot: Any, frame: _Frame, best: Sequence[Point]) -> None:
        names = named(self._drawn)
        points = [(*frame.share(point), name) for point, name in names]
        marked = {index for index, (point, _) in enumerate(names) if point.is_marked}
        places = place_names(points, [frame.share(point) for point in best], marked)
        for (point, name), place in zip(names, places, strict=True):
            if place is None:
                continue
            source = ColumnDataSource({"x": [point.x], "y": [point.y], "name": [name]})
            right, down = place.offset
            text = plot.text(
                "x",
                "y",
                "name",
                source=source,
                x_offset=right,
                y_offset=down,
                text_align=("right", "center", "left")[place.x + 1],
                text_baseline=("top", "middle", "bottom")[place.y + 1],
                text_font_size="12px",
            )
            text.glyph.tags = [point.color or "--ink"]


def front(points: Sequence[Point], more_is_better: bool) -> list[Point]:
    """The Pareto front by ``x``: points that no other point beats in one value and equals in the other."""
    sign = -1 if more_is_better else 1
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (sign * point.x, point.y)):
        if not best or point.y < best[-1].y:
            best.append(point)
    return sorted(best, key=lambda point: point.x)


def named(points: Sequence[Point]) -> list[tuple[Point, str]]:
    """Points with the names to write beside them; overlapping points share one name."""
    frame = _frame(points)
    groups: list[list[Point]] = []
    for point in points:
        x, y = frame.share(point)
        for group in groups:
            first_x, first_y = frame.share(group[0])
            if abs(first_x - x) <= _NEAR_X and abs(first_y - y) <= _NEAR_Y:
                group.append(point)
                break
        else:
            groups.append([point])
    return [_name_of(group) for group in groups]


def _name_of(group: Sequence[Point]) -> tuple[Point, str]:
    """The name of overlapping points: all names if they are few, else that of the marked point."""
    first = next((point for point in group if point.is_marked), group[0])
    if len(group) > _MOST_NAMES:
        return first, f"{first.label} and {len(group) - 1} more"
    return first, "\n".join(point.label for point in group)


@dataclass(frozen=True)
class _Frame:
    """The part of the plane that a chart shows: from 0 to ``right``, from ``bottom`` to ``top``."""

    right: float
    bottom: float
    top: float

    def share(self, point: Point) -> tuple[float, float]:
        """Position of a point, from 0 (left, bottom) to 1."""
        return point.x / self.right, (point.y - self.bottom) / (self.top - self.bottom)


def _frame(points: Sequence[Point]) -> _Frame:
    """A frame around points and spreads, not so small that a negligible difference fills the chart."""
    low = min((point.end(0) for point in points), default=0.0)
    high = max((point.end(1) for point in points), default=0.0)
    span = max((1 + _PADDING_Y) * (high - low), _LEAST_SPAN * abs(high), 1e-6)
    right = (1 + _PADDING_X) * max((point.x for point in points), default=0.0)
    return _Frame(right if right > 0 else 1.0, (low + high - span) / 2, (low + high + span) / 2)
