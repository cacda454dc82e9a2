"""The curves of training against the step."""

from __future__ import annotations

import math

from insight.reporting.charts import Chart, Line, smooth
from insight.reporting.metrics import Curve, curve
from insight.reporting.run_record import RunRecord
from insight.reporting.sections.section import Section

_SMOOTHED_FROM = 60


def build_curves(run: RunRecord) -> Section | None:
    """Loss, bits per byte, learning rate, throughput, memory and gradient norm, those that were logged."""

    def of(name: str) -> Curve:
        return curve(run.metrics, name)

    memory = [_scaled(of(f"memory/{name}"), 1e-9) for name in ("resident_bytes", "peak_bytes")]
    charts = (
        Chart(
            "chart-loss",
            "Loss",
            "nats per token",
            (
                *_noisy("training", of("train/loss")),
                Line("validation", of("validation/loss"), "--line-2"),
            ),
            top=_top_after_start(of("train/loss")),
        ),
        Chart(
            "chart-bits",
            "Bits per byte",
            "of the validation text",
            (Line("validation", of("validation/bits_per_byte"), "--line-2"),),
        ),
        Chart(
            "chart-rate",
            "Learning rate",
            "of the matrices inside blocks",
            (Line("learning rate", of("train/learning_rate"), "--line-1"),),
            tick_format="0.[000000]",
            from_zero=True,
        ),
        Chart(
            "chart-gradient",
            "Gradient norm",
            "before clipping",
            _noisy("gradient norm", of("train/gradient_norm")),
            tick_format="0.[0000]",
            logarithmic=_spans_decades(of("train/gradient_norm")),
        ),
        Chart(
            "chart-throughput",
            "Throughput",
            "tokens per second",
            _noisy("throughput", of("throughput/tokens_per_second")),
            tick_format="0,0",
            from_zero=True,
        ),
        Chart(
            "chart-memory",
            "Memory",
            "GB",
            (
                Line("resident", memory[0], "--line-1"),
                Line("peak", memory[1], "--line-2"),
            ),
            from_zero=True,
        ),
    )
    drawn = tuple(chart for chart in charts if chart.lines)
    return Section("curves", "Training", "curves.html.j2", charts=drawn) if drawn else None


def _noisy(label: str, points: Curve) -> tuple[Line, ...]:
    """A curve that jumps from step to step: faint as it is, strong as its moving average."""
    if len(points.values) < _SMOOTHED_FROM:
        return (Line(label, points, "--line-1"),)
    return (
        Line(label, points, "--line-1", faint=True),
        Line(f"{label}, smoothed", smooth(points), "--line-1"),
    )


def _scaled(points: Curve, factor: float) -> Curve:
    return Curve(points.steps, points.seconds, tuple(value * factor for value in points.values))


def _top_after_start(points: Curve) -> float | None:
    """Where to cut a loss curve so that its fall in the first steps does not flatten all that follows.

    The frame ends at the largest value after the first 3% of the points, if there is enough above it to
    be worth the cut.
    """
    finite = [value for value in points.values if math.isfinite(value)]
    later = finite[math.ceil(0.03 * len(finite)) :]
    if len(finite) < _SMOOTHED_FROM or not max(finite) - min(finite) > 1.25 * (max(later) - min(finite)):
        return None
    return max(later) + 0.05 * (max(later) - min(finite))


def _spans_decades(points: Curve) -> bool:
    """Whether a curve of positive values spans more than a factor of 30, which a linear axis would hide."""
    finite = [value for value in points.values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > 30 * min(finite)
