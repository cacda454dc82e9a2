"""The curves of training against the step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from insight.reporting.charts import Chart, Line, smooth
from insight.reporting.run_files import Curve, RunRecord, curve
from insight.reporting.sections.section import Fact, Section, entries_of, list_of, mapping_of, name_of, number
from insight.runtime.formats import format_value, safe_text
from insight.runtime.json_files import read_object
from insight.runtime.run_folder import RunFolder

_SMOOTHED_FROM = 60


def build_curves(run: RunRecord) -> Section | None:
    """Loss, bits per byte, learning rate, throughput, memory and gradient norm, as far as logged."""

    def line(label: str, name: str, color: str, factor: float = 1.0) -> Line:
        found = curve(run.metrics, name)
        return Line(label, replace(found, values=tuple(factor * value for value in found.values)), color)

    loss, gradient = curve(run.metrics, "train/loss"), curve(run.metrics, "train/gradient_norm")
    norms, finite = _noisy("gradient norm", gradient), _finite(gradient.values)
    is_wide = bool(finite) and min(finite) > 0 and max(finite) > 30 * min(finite)
    speeds = _noisy("throughput", curve(run.metrics, "throughput/tokens_per_second"))
    losses = (*_noisy("training", loss), line("validation", "validation/loss", "--line-2"))
    bits = (line("validation", "validation/bits_per_byte", "--line-2"),)
    matrices = "of the matrices inside blocks"
    rates = (line("learning rate", "train/learning_rate", "--line-1"),)
    resident = line("resident", "memory/resident_bytes", "--line-1", 1e-9)
    memory = (resident, line("peak", "memory/peak_bytes", "--line-2", 1e-9))
    charts = (
        Chart("chart-loss", "Loss", "nats per token", losses, top=_top_after_start(loss)),
        Chart("chart-bits", "Bits per byte", "of the validation text", bits),
        Chart("chart-rate", "Learning rate", matrices, rates, from_zero=True),
        Chart("chart-gradient", "Gradient norm", "before clipping", norms, logarithmic=is_wide),
        Chart("chart-throughput", "Throughput", "tokens per second", speeds, from_zero=True),
        Chart("chart-memory", "Memory", "GB", memory, from_zero=True),
    )
    drawn = tuple(chart for chart in charts if chart.lines)
    return Section("curves", "Training", "curves.html.j2", charts=drawn) if drawn else None


def _noisy(label: str, points: Curve) -> tuple[Line, ...]:
    """A noisy curve, drawn faint, and its moving average."""
    if len(points.values) < _SMOOTHED_FROM:
        return (Line(label, points, "--line-1"),)
    smoothed = Line(f"{label}, smoothed", smooth(points), "--line-1")
    return Line(label, points, "--line-1", faint=True), smoothed


def _top_after_start(points: Curve) -> float | None:
    """The top of the frame of a loss curve, so that its first steep fall does not flatten the rest.

    It is the largest value after the first 3% of the points, if the curve rises far enough above it.
    """
    finite = _finite(points.values)
    later = finite[math.ceil(0.03 * len(finite)) :]
    if len(finite) < _SMOOTHED_FROM or not max(finite) - min(finite) > 1.25 * (max(later) - min(finite)):
        return None
    return max(later) + 0.05 * (max(later) - min(finite))


_MAX_GROUPS = 40


def build_learning_rate(run: RunRecord) -> Section | None:
    """The loss against the multiplier of the configured rates, and the rates at its steepest fall."""
    record = read_object(RunFolder(run.folder).learning_rate_path)
    pairs = zip(list_of(record.get("multipliers")), list_of(record.get("losses")), strict=False)
    points = [(number(x), number(y)) for x, y in pairs]
    losses = Curve.of((x, y) for x, y in points if x > 0 and math.isfinite(x) and math.isfinite(y))
    if not losses.steps:
        return None
    steepest = number(record.get("steepest"))
    lines = [Line("loss", losses, "--line-1", faint=True), Line("smoothed", smooth(losses, 0.1), "--line-1")]
    if math.isfinite(steepest):
        mark = Curve.of((steepest, end) for end in (min(losses.values), max(losses.values)))
        lines.append(Line("falls fastest", mark, "--line-2", dashed=True))
    chart = Chart(
        "chart-sweep",
        "Loss in the sweep",
        "nats per token, against the multiple of the learning rates",
        tuple(lines),
        x_name="multiple",
        x_logarithmic=True,
    )
    content = {"sentence": _sweep_sentence(record, steepest), "facts": _rates(record, steepest)}
    return Section("learning-rate", "Learning rate", "learning_rate.html.j2", content, (chart,))


def _sweep_sentence(record: dict[str, Any], steepest: float) -> str:
    if not math.isfinite(steepest):
        return "The loss did not fall in the sweep: nothing can be said about the learning rate."
    parts = [f"The loss fell fastest at {format_value(steepest)} times the configured learning rates"]
    lowest, diverged = number(record.get("lowest_loss")), number(record.get("diverged"))
    if math.isfinite(lowest):
        parts.append(f"it was lowest at {format_value(lowest)}")
    if math.isfinite(diverged):
        parts.append(f"at {format_value(diverged)} it was worse than untrained")
    return ", ".join(parts) + ". The run used the configured ones."


def _rates(record: dict[str, Any], steepest: float) -> list[Fact]:
    rates = list(mapping_of(record.get("rates")).items()) if math.isfinite(steepest) else []
    return [
        Fact(role, f"{format_value(number(rate))} configured, {format_value(steepest * number(rate))} there")
        for role, rate in rates[:_MAX_GROUPS]
    ]


_MAX_ANSWERS = 12
_MAX_EVIDENCE_LINES = 4
_TEXT_CHARACTERS = 1_000
_COLORS = ("--line-3", "--quiet", "--ink", "--quiet")
# The first validations may lie above the frame, so that they do not flatten the later ones.
_EARLY_SHARE = 0.25
_WORTH_A_CUT = 1.5


def build_stopping(run: RunRecord) -> Section | None:
    """Show the watched metric, the answer of each criterion, and a chart of the evidence."""
    record = read_object(RunFolder(run.folder).early_stopping_path)
    answers = entries_of(record.get("answers"))[:_MAX_ANSWERS]
    validations = entries_of(record.get("validations"))
    if not answers or not validations:
        return None
    rows = []
    for answer in answers:
        evidence = safe_text(str(answer.get("evidence", "")), _TEXT_CHARACTERS)
        stops = answer.get("stop") is True
        rows.append({"name": name_of(answer, "criterion"), "stops": stops, "evidence": evidence})
    drawn = [(index, answer) for index, answer in enumerate(answers) if list_of(answer.get("lines"))]
    charts = (_stopping_chart(index, record, answer, validations) for index, answer in drawn)
    content = {"sentence": _stopping_sentence(record, len(validations)), "rows": rows}
    return Section("stopping", "Early stopping", "stopping.html.j2", content, tuple(charts))


def _stopping_sentence(record: Mapping[str, Any], num_validations: int) -> str:
    """For example: "Stopped at step 1,200 of 4,000 (validation/bits_per_byte, 24 validations)."."""
    step, planned = number(record.get("step")), number(record.get("num_planned_steps"))
    place = f"step {step:,.0f}" if math.isfinite(step) else "an unknown step"
    if math.isfinite(planned):
        place += f" of {planned:,.0f}"
    asked = f"{name_of(record, 'monitor')}, {num_validations} validations"
    if record.get("stopped") is True:
        return f"Stopped at {place} ({asked})."
    return f"Did not stop: at {place} there was a reason to go on ({asked})."


def _stopping_chart(
    index: int, record: Mapping[str, Any], answer: Mapping[str, Any], validations: Sequence[Mapping[str, Any]]
) -> Chart:
    steps = [point.get("step") for point in validations]
    evidence = entries_of(answer.get("lines"))[:_MAX_EVIDENCE_LINES]
    lines = [Line("validation", _points(steps, [one.get("value") for one in validations]), "--line-2")]
    if any("training" in str(line.get("label")) for line in evidence):
        values = [one.get("training_value") for one in validations]
        lines.append(Line("training", _points(steps, values), "--line-1"))
    measured = [line.curve for line in lines]
    for line, color in zip(evidence, _COLORS, strict=False):
        label = name_of(line, "label")
        is_mark = not list_of(line.get("low"))
        lines.append(Line(label, _points(line.get("steps"), line.get("values")), color, dashed=is_mark))
        for end in ("low", "high"):
            ends = _points(line.get("steps"), line.get(end))
            lines.append(Line(f"{label}, {end} end", ends, color, faint=True))
    top = _top(measured, [line.curve for line in lines[len(measured) :]])
    if answer.get("stop") is True and record.get("stopped") is True:
        lines.append(_mark(number(record.get("step")), [line.curve for line in lines], top))
    stops = "says stop" if answer.get("stop") is True else "says go on"
    return Chart(
        f"chart-stopping-{index}",
        f"{name_of(answer, 'criterion')} {stops}",
        name_of(record, "monitor"),
        tuple(lines),
        top=top,
    )


def _mark(step: float, curves: Sequence[Curve], top: float | None) -> Line:
    """A vertical line at the step where training stopped, as high as the chart."""
    values = _finite(*(curve.values for curve in curves))
    if not math.isfinite(step) or not values:
        return Line("stopped", Curve(), "--warning")
    ends = (min(values), max(values) if top is None else top)
    return Line("stopped", Curve.of((int(step), end) for end in ends), "--warning", dashed=True)


def _top(measured: Sequence[Curve], evidence: Sequence[Curve]) -> float | None:
    """The top of the frame, so that the first validations do not flatten the rest; ``None`` if uncut."""
    later = [curve.values[math.ceil(_EARLY_SHARE * len(curve.values)) :] for curve in measured]
    shown = _finite(*later, *(curve.values for curve in evidence))
    everything = _finite(shown, *(curve.values for curve in measured))
    if not shown or max(everything) - min(shown) < _WORTH_A_CUT * (max(shown) - min(shown)):
        return None
    return max(shown) + 0.05 * (max(shown) - min(shown))


def _finite(*values: Sequence[float]) -> list[float]:
    return [value for some in values for value in some if math.isfinite(value)]


def _points(steps: Any, values: Any) -> Curve:
    """Points of a JSON file, without those that lack a step."""
    return Curve.of(
        (round(number(step)), number(value))
        for step, value in zip(list_of(steps), list_of(values), strict=False)
        if math.isfinite(number(step)) and value is not None
    )
