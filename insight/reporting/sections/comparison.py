"""Models that were measured on the same task, as rows of a table and points of charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from insight.reporting.charts import SERIES_COLORS
from insight.reporting.run_files import RunRecord
from insight.reporting.scatter import Point, ScatterChart
from insight.reporting.sections.section import (
    Fact,
    Section,
    difference_of,
    entries_of,
    facts_of,
    list_of,
    name_of,
    number,
    shown,
    text_of,
)
from insight.reporting.sections.setup import hardware_facts, versions
from insight.runtime.formats import format_bytes, format_duration, format_latency
from insight.runtime.json_files import read_object

# Sizes and speeds that differ by less than this count as equal: medians on one machine vary as much.
_ALIKE = 0.03


@dataclass(frozen=True)
class ComparedModel:
    """One model; missing measurements are NaN.

    ``difference`` is the bits per byte more than the first model, with both ends of its interval. A marked
    model is the chosen one.
    """

    name: str
    size: float
    bits_per_byte: float
    difference: tuple[float, float, float] | None
    tokens_per_second: float
    is_marked: bool = False
    color: str = ""


def _compared(entry: Mapping[str, Any], size: Any, speed: Any, is_marked: bool = False) -> ComparedModel:
    difference = difference_of(entry.get("quality_difference"))
    bits = number(entry.get("bits_per_byte"))
    return ComparedModel(name_of(entry), number(size), bits, difference, number(speed), is_marked)


def frontier_charts(models: Sequence[ComparedModel], prefix: str, speed_at: str) -> tuple[ScatterChart, ...]:
    """Quality against size and against speed, e.g. at "batch 1"; charts without points are left out."""
    base = models[0].bits_per_byte if models else math.nan

    def point(model: ComparedModel, x: float) -> Point:
        spread = None
        if model.difference is not None and math.isfinite(base):
            spread = (base + model.difference[1], base + model.difference[2])
        return Point(model.name, x, model.bits_per_byte, spread, model.is_marked, model.color)

    sizes = tuple(point(model, model.size / 1e6) for model in models)
    speeds = tuple(point(model, model.tokens_per_second) for model in models)
    unit, size_label = "bits per byte", "MB of weights (less is better)"
    label = f"tokens per second, {speed_at} (more is better)"
    charts = (
        ScatterChart(f"{prefix}-size", "Quality against size", unit, size_label, sizes),
        ScatterChart(f"{prefix}-speed", "Quality against speed", unit, label, speeds, more_is_better=True),
    )
    return tuple(chart for chart in charts if chart.num_lost < len(chart.points))


_MAX_CANDIDATES = 40
_MAX_MODULES = 200


def build_compression(run: RunRecord) -> Section | None:
    """Size, memory, quality and speed of every method, and which was kept and why."""
    report = read_object(run.folder / "quantization" / "report.json")
    candidates = entries_of(report.get("candidates"))[:_MAX_CANDIDATES]
    if not candidates:
        return None
    chosen = name_of(report, "chosen")
    measured = [entry for entry in candidates if entry.get("status") == "ok"]
    reason = text_of(report.get("reason"))
    if reason:
        reason = reason[0].upper() + reason[1:] + ("" if reason.endswith((".", ")")) else ".")
    seconds, allowed = number(report.get("seconds")), number(report.get("max_quality_loss"))
    facts = [Fact("bits per byte that may be lost", f"{allowed:.2%}")] if math.isfinite(allowed) else []
    facts += facts_of(report.get("text"))
    facts += [Fact("time for all of it", format_duration(seconds))] if math.isfinite(seconds) else []
    content = {
        "sentence": reason or _compression_sentence(measured, chosen),
        "rows": [{**entry, "notes": _notes(entry, chosen)} for entry in measured],
        "has_memory": any(math.isfinite(number(entry.get("resident_bytes"))) for entry in measured),
        "refused": [entry for entry in candidates if entry.get("status") != "ok"],
        "modules": [found for entry in measured if (found := _modules(entry))],
        "facts": [*facts, *hardware_facts(report.get("machine"))],
    }
    models = [
        _compared(entry, entry.get("disk_bytes"), entry.get("tokens_per_second"), name_of(entry) == chosen)
        for entry in measured
    ]
    charts = frontier_charts(models, "chart-compression", "as in the table")
    return Section("compression", "Compression", "compression.html.j2", content, charts)


def _notes(entry: Mapping[str, Any], chosen: str) -> str:
    notes = ["kept"] if name_of(entry) == chosen else []
    notes += ["on the Pareto front"] if entry.get("pareto") is True else []
    compiling = number(entry.get("compile_seconds"))
    notes += [f"compiling took {format_latency(compiling)}"] if math.isfinite(compiling) else []
    return ", ".join(notes)


def _compression_sentence(measured: list[Mapping[str, Any]], chosen: str) -> str:
    """For example: "Kept int8_dynamic: 0.27 of the size, 2.1 times as fast, +0.12% bits per byte."."""
    kept = next((entry for entry in measured if name_of(entry) == chosen), None)
    if kept is None:
        return "Nothing was chosen."
    if kept is measured[0]:
        return "The model was left as it is."
    parts = []
    for key, less, form in (
        ("disk_bytes", 0, "{:.2f} of the size"),
        ("tokens_per_second", 0, "{:.2f} times as fast at writing"),
        ("bits_per_byte", 1, "{:+.2%} bits per byte"),
    ):
        ratio = number(kept.get(key)) / (number(measured[0].get(key)) or math.nan) - less
        parts += [form.format(ratio)] if math.isfinite(ratio) else []
    return f"Kept {chosen}: {', '.join(parts)}."


def _modules(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """Which modules a method quantized or left, and why; ``None`` if that was not recorded."""
    names = [text_of(name) for name in list_of(entry.get("modules_quantized"))]
    left = entries_of(entry.get("modules_kept"))
    if not names and not left:
        return None
    return {
        "name": name_of(entry),
        "num_quantized": len(names),
        "num_kept": len(left),
        "quantized": names[:_MAX_MODULES],
        "kept": left[:_MAX_MODULES],
        "num_left_out": max(0, len(names) - _MAX_MODULES) + max(0, len(left) - _MAX_MODULES),
    }


def build_benchmark(run: RunRecord) -> Section | None:
    """Size, memory, quality and speed of every model, each against the first."""
    models = _models(run)
    if not models:
        return None
    compared = [
        _compared(model, model.get("weight_bytes"), _smallest_batch(model).get("tokens_per_second"))
        for model in models
    ]
    content = {
        "sentences": [_verdict(compared[0], model) for model in compared[1:]],
        "first": compared[0].name,
        "models": models,
        "speeds": [(name_of(model), speed) for model in models for speed in entries_of(model.get("speeds"))],
    }
    colored = [
        replace(model, color=SERIES_COLORS[index % len(SERIES_COLORS)])
        for index, model in enumerate(compared)
    ]
    batch = shown(_smallest_batch(models[0]).get("batch_size"))
    charts = frontier_charts(colored, "chart-benchmark", f"batch {batch}")
    return Section("benchmark", "Comparison", "benchmark.html.j2", content, charts)


def _verdict(first: ComparedModel, model: ComparedModel) -> str:
    """One sentence: where a model is better than the first, where worse, and what follows."""
    better: list[str] = []
    worse: list[str] = []
    equal: list[str] = []
    if model.difference is not None:
        value, low, high = model.difference
        if low <= 0 <= high:
            equal.append("as good (no difference found)")
        else:
            text = f"{'worse' if value > 0 else 'better'} by {abs(value):.4f} bits per byte"
            (worse if value > 0 else better).append(text)
    sizes = model.size / first.size if first.size else math.nan
    times = first.tokens_per_second / model.tokens_per_second if model.tokens_per_second else math.nan
    for ratio, smaller, larger in (
        (sizes, "smaller", "larger"),
        (times, "faster at writing", "slower at writing"),
    ):
        if not math.isfinite(ratio) or ratio <= 0:
            continue
        if abs(ratio - 1) < _ALIKE:
            equal.append(f"not {smaller}")
        elif ratio < 1:
            better.append(f"{1 / ratio:.2f} times {smaller}")
        else:
            worse.append(f"{ratio:.2f} times {larger}")
    said = [*better, *equal, *worse]
    if not said:
        return f"{model.name} could not be compared with {first.name}."
    if better and worse:
        verdict = "neither is better in everything"
    elif better or worse:
        verdict = f"{model.name if better else first.name} is the better one"
    else:
        verdict = "no difference was found"
    return f"{model.name} against {first.name}: {', '.join(said)}. So {verdict}."


def build_benchmark_setup(run: RunRecord) -> Section | None:
    """Setup of the measurement: text, prompts, machine, versions and models."""
    summary = read_object(run.folder / "summary.json")
    rows: list[Fact] = []
    if isinstance(text := summary.get("text"), Mapping):
        files = text.get("files")
        rows.append(Fact("text", shown(text.get("description"))))
        rows.append(Fact("its files", shown(files) if isinstance(files, list) else ""))
        rows.append(Fact("its size", format_bytes(number(text.get("bytes")))))
    rows += facts_of(summary.get("settings"))
    rows += hardware_facts(summary.get("machine"))
    rows += [Fact("num threads", shown(summary["num_threads"]))] if "num_threads" in summary else []
    rows += versions({key: value for key, value in summary.items() if key != "format_version"})
    rows += [Fact(name_of(model), shown(model.get("path"))) for model in _models(run)]
    return Section("setup", "How it was measured", "facts.html.j2", {"facts": rows}) if rows else None


def _models(run: RunRecord) -> list[Mapping[str, Any]]:
    return entries_of(read_object(run.folder / "summary.json").get("models"))


def _smallest_batch(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """The speed at the smallest batch, which is the speed for a single user."""
    speeds = entries_of(model.get("speeds"))
    return min(speeds, key=lambda speed: number(speed.get("batch_size")), default={})
