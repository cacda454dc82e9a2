"""Curves and bars as Bokeh charts without colours; the page sets light or dark ones."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Any, ClassVar

import numpy as np
from bokeh.core.types import ID
from bokeh.embed import json_item
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    DataRange1d,
    HoverTool,
    NumeralTickFormatter,
    Range1d,
    ResetTool,
)
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure

from insight.reporting.run_files import Curve
from insight.runtime.formats import format_duration

# Longer curves are averaged in groups of equal size: no screen shows more points, and the page stays small.
MAX_POINTS = 1000
_FEW_POINTS = 40
SERIES_COLORS = ("--line-1", "--line-2", "--line-3", "--line-4")
"""CSS variables of the colours of things that are compared, such as models."""


@dataclass(frozen=True)
class Line:
    """One curve of a chart, with its name in the legend and the tooltip, and the CSS variable of its colour.

    A faint one is the background of another line (the raw form of a smoothed curve); a dashed one is a marker
    rather than a measured curve.
    """

    label: str
    curve: Curve
    color: str
    faint: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over a horizontal axis, with a caption; lines without points are left out.

    Args:
        identifier: Unique in the page.
        title: Heading of the chart.
        unit: Unit of the vertical axis.
        lines: The lines.
        from_zero: Whether the vertical axis begins at 0.
        logarithmic: Whether the vertical axis is logarithmic.
        top: End of the vertical axis; by default the largest value.
        x_name: Name of the quantity on the horizontal axis.
        x_logarithmic: Whether the horizontal axis is logarithmic.
    """

    identifier: str
    title: str
    unit: str
    lines: tuple[Line, ...]
    from_zero: bool = False
    logarithmic: bool = False
    top: float | None = None
    x_name: str = "step"
    x_logarithmic: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "lines", tuple(line for line in self.lines if line.curve.steps))

    @property
    def description(self) -> str:
        """Text alternative of the chart."""
        parts = []
        for line in self.lines:
            finite = [value for value in line.curve.values if math.isfinite(value)]
            if finite and not line.faint:
                parts.append(f"{line.label} from {finite[0]:.4g} to {finite[-1]:.4g}")
        return f"{self.title}, {self.unit}: {'; '.join(parts) or 'no finite values'}"

    @property
    def has_more_above(self) -> bool:
        """Whether some values lie above the frame."""
        values = [value for line in self.lines for value in line.curve.values]
        return self.top is not None and any(value > self.top for value in values)

    @property
    def num_lost(self) -> int:
        """Number of points that are left out because they are not finite."""
        return sum(not math.isfinite(value) for line in self.lines for value in line.curve.values)

    def to_item(self) -> dict[str, Any]:
        """The chart as the JSON object that ``Bokeh.embed.embed_item`` takes."""
        x_axis, y_axis = ("log" if log else "linear" for log in (self.x_logarithmic, self.logarithmic))
        plot = empty_plot(240, toolbar_location="above", x_axis_type=x_axis, y_axis_type=y_axis)
        plot.toolbar.logo = None
        plot.toolbar.autohide = True
        plot.xgrid.visible = False
        plot.x_range = DataRange1d(range_padding=0.02)
        if not self.x_logarithmic:
            plot.x_range.start = 0  # aligns charts that are side by side
        plot.y_range = DataRange1d()
        if self.from_zero:
            plot.y_range.start = 0
        if self.top is not None:
            plot.y_range.end = self.top
        main = next((line for line in self.lines if not line.faint), None)
        for line in self.lines:
            source = ColumnDataSource(_columns(line.curve))
            width, alpha = (1.2, 0.35) if line.faint else (2.2, 1.0)
            drawn = plot.line("step", "value", source=source, line_width=width, line_join="round")
            drawn.glyph.update(tags=[line.color], line_alpha=alpha)
            if line.dashed:
                drawn.glyph.line_dash = "dashed"
            if len(line.curve.steps) <= _FEW_POINTS and not line.faint and not line.dashed:
                points = plot.scatter("step", "value", source=source, size=6, line_alpha=0)
                points.glyph.tags = [line.color]
            if not line.faint:
                plot.add_tools(_hover(line, drawn, self.x_name, is_main=line is main))
        plot.add_tools(BoxZoomTool(dimensions="width"), ResetTool())
        plot.toolbar.active_drag = None  # a finger that scrolls the page must not zoom a chart
        return dict(json_item(plot, ID(self.identifier)))


@dataclass(frozen=True)
class Bar:
    """One bar of a :class:`BarChart`; ``series`` is the index of its series and ``value`` its length."""

    label: str
    series: int
    value: float


@dataclass(frozen=True)
class BarChart:
    """Bars in groups: one group per label, one bar per series, at most four.

    Bars that are not finite are left out and counted; ``unit`` is that of the lengths.
    """

    identifier: str
    title: str
    unit: str
    series: tuple[str, ...]
    bars: tuple[Bar, ...]
    has_more_above: ClassVar[bool] = False

    @property
    def lines(self) -> tuple[Line, ...]:
        """Entries of the legend."""
        named = zip(self.series, SERIES_COLORS, strict=False)
        return tuple(Line(name, Curve(), color) for name, color in named)

    @property
    def description(self) -> str:
        """Text alternative of the chart."""
        parts = [f"{bar.label}, {self.series[bar.series]}: {bar.value:.4g}" for bar in self._drawn]
        return f"{self.title}, {self.unit}: {'; '.join(parts) or 'no finite values'}"

    @property
    def num_lost(self) -> int:
        """Number of bars that are left out because they are not finite."""
        return len(self.bars) - len(self._drawn)

    @property
    def _drawn(self) -> list[Bar]:
        return [bar for bar in self.bars if math.isfinite(bar.value)]

    def to_item(self) -> dict[str, Any]:
        """The chart as the JSON object that ``Bokeh.embed.embed_item`` takes."""
        labels = list(dict.fromkeys(bar.label for bar in self.bars))
        height, thickness = len(labels), 0.8 / max(1, len(self.series))
        plot = empty_plot(60 + len(labels) * (14 + 16 * len(self.series)))
        plot.ygrid.visible = False
        # The first label is at the top.
        plot.yaxis.ticker = [height - index for index in range(len(labels))]
        plot.yaxis.major_label_overrides = {height - index: label for index, label in enumerate(labels)}
        longest = max((bar.value for bar in self._drawn), default=0.0)
        plot.x_range = Range1d(start=0, end=1.05 * longest if longest > 0 else 1.0)
        plot.y_range = Range1d(start=0.5, end=height + 0.5)
        for series, name in enumerate(self.series):
            bars = [bar for bar in self._drawn if bar.series == series]
            middle = 0.4 - thickness * (series + 0.5)
            columns = {
                "y": [height - labels.index(bar.label) + middle for bar in bars],
                "value": [bar.value for bar in bars],
                "label": [bar.label for bar in bars],
                "series": [name for _ in bars],
            }
            source = ColumnDataSource(columns)
            drawn = plot.hbar(y="y", right="value", height=0.9 * thickness, source=source, line_alpha=0)
            drawn.glyph.tags = [SERIES_COLORS[series]]
            rows = (("", "@label"), ("", "@series"), (self.unit, "@value{0.[0000]}"))
            plot.add_tools(HoverTool(renderers=[drawn], tooltips=tooltip(rows)))
        return dict(json_item(plot, ID(self.identifier)))


def empty_plot(height: int, toolbar_location: Any = None, **options: Any) -> Any:
    """A figure without what the page's style does not colour: backgrounds, outlines and minor ticks.

    Ticks have round numbers, so each is written with the digits that it has, however close they are.
    """
    plot = figure(
        height=height,
        sizing_mode="stretch_width",
        tools=[],
        toolbar_location=toolbar_location,
        output_backend="canvas",
        min_border=4,
        **options,
    )
    plot.background_fill_alpha = 0
    plot.border_fill_alpha = 0
    plot.outline_line_alpha = 0
    plot.axis.minor_tick_line_alpha = 0
    plot.axis.major_tick_line_alpha = 0
    plot.yaxis.axis_line_alpha = 0
    plot.axis.major_label_text_font_size = "12px"
    plot.axis.formatter = NumeralTickFormatter(format="0,0.[000000]")
    return plot


def tooltip(rows: Iterable[tuple[str, str]]) -> str:
    """The HTML of a tooltip of names and values; it uses CSS variables, since Bokeh's are always light."""
    cells = "".join(
        f'<span style="color:var(--quiet)">{name}</span><span>{value}</span>' for name, value in rows
    )
    grid = "display:grid;grid-template-columns:auto auto;gap:1px 10px;font:12px/1.5 var(--sans)"
    return f'<div style="{grid}">{cells}</div>'


def _hover(line: Line, drawn: GlyphRenderer[Any], x_name: str, is_main: bool) -> HoverTool:
    """A tooltip that follows the pointer along the main line, and appears at the points of other lines."""
    shown = {escape(line.label): "@value{%0.4g}", x_name: "@step{0,0.[000]}"}
    if any(map(math.isfinite, line.curve.seconds)):
        shown["time"] = "@time"
    return HoverTool(
        renderers=[drawn],
        tooltips=tooltip(shown.items()),
        formatters={"@value": "printf"},
        mode="vline" if is_main else "mouse",
        attachment="horizontal" if is_main else "vertical",
    )


def smooth(curve: Curve, share: float = 0.03) -> Curve:
    """The moving mean over a centred window of about ``share`` of the points.

    At the start the window is narrower so that it stays centred: otherwise the mean would be below the
    steep fall of the first steps. Values that are not finite are ignored and become NaN.
    """
    values = np.asarray(curve.values, dtype=np.float64)
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    index = np.arange(len(values))
    reach = np.minimum(index, max(1, round(share * len(values) / 2)))
    first, after = index - reach, np.minimum(index + reach + 1, len(values))
    means = (sums[after] - sums[first]) / np.maximum(counts[after] - counts[first], 1)
    return Curve(curve.steps, curve.seconds, tuple(np.where(finite, means, np.nan).tolist()))


def _columns(curve: Curve) -> dict[str, Any]:
    steps, seconds, values = (np.asarray(column, dtype=np.float64) for column in _thinned(curve))
    return {
        "step": steps,
        # Bokeh draws a gap at NaN, and does not handle infinity.
        "value": np.where(np.isfinite(values), values, np.nan),
        "time": [format_duration(second) for second in seconds],
    }


def _thinned(curve: Curve) -> tuple[list[float], list[float], list[float]]:
    """At most ``MAX_POINTS`` points, each the mean of equally many neighbours; NaN if none is finite."""
    group = math.ceil(len(curve.steps) / MAX_POINTS)
    columns: tuple[list[float], list[float], list[float]] = ([], [], [])
    for start in range(0, len(curve.steps), group):
        for column, source in zip(columns, (curve.steps, curve.seconds, curve.values), strict=True):
            finite = [value for value in source[start : start + group] if math.isfinite(value)]
            column.append(sum(finite) / len(finite) if finite else math.nan)
    return columns
