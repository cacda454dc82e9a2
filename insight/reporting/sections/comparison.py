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
    facts_of,
    name_of,
    number,
    readable,
    shown,
)
from insight.reporting.sections.setup import hardware_facts
from insight.runtime.formats import (
    format_bytes,
    format_difference,
    format_duration,
    format_latency,
    safe_text,
)
from insight.runtime.json_files import read_object

# Sizes and speeds that differ by less than this count as equal: medians on one machine vary as much.
_ALIKE = 0.03


@dataclass(frozen=True)
class ComparedModel:
    """One model; missing measurements are NaN.

    Args:
        name: Name of the model.
        size: Size in bytes.
        bits_per_byte: Bits per byte on the text that all models were measured on.
        difference: Bits per byte more than the first model, with the lower and upper end of its interval.
        tokens_per_second: Speed of generation.
        is_marked: Whether it is the chosen model.
        color: CSS variable of its colour; if empty, the chart chooses.
    """

    name: str
    size: float
    bits_per_byte: float
    difference: tuple[float, float, float] | None
    tokens_per_second: float
    is_marked: bool = False
    color: str = ""


def frontier_charts(
    models: Sequence[ComparedModel], prefix: str, size_of: str, speed_at: str
) -> tuple[ScatterChart, ...]:
    """Quality against size and against speed; charts without points are left out.

    Args:
        models: The models; the others are compared with the first.
        prefix: Prefix of the identifiers.
        size_of: The measured thing, e.g. ``"weights"``.
        speed_at: Setting of the speed measurement, e.g. ``"batch 1"``.
    """
    base = models[0].bits_per_byte if models else math.nan
    charts = (
        ScatterChart(
            f"{prefix}-size",
            "Quality against size",
            "bits per byte",
            f"MB of {size_of} (less is better)",
            tuple(_point(model, model.size / 1e6, base) for model in models),
        ),
        ScatterChart(
            f"{prefix}-speed",
            "Quality against speed",
            "bits per byte",
            f"tokens per second, {speed_at} (more is better)",
            tuple(_point(model, model.tokens_per_second, base) for model in models),
            more_is_better=True,
        ),
    )
    return tuple(chart for chart in charts if chart.num_lost < len(chart.points))


def shown_bits(bits: float) -> str:
    """Bits per byte with enough digits to see differences."""
    return f"{bits:.4f}" if math.isfinite(bits) else "unknown"


def shown_difference(difference: tuple[float, float, float] | None) -> dict[str, str]:
    """``value`` and ``interval`` of a difference in bits per byte, with signs; empty for ``None``."""
    if difference is None:
        return {"value": "", "interval": ""}
    value, low, high = (format_difference(end) for end in difference)
    return {"value": value, "interval": f"{low} to {high}"}


def shown_size(size: float) -> str:
    """A size; empty if unknown."""
    return format_bytes(size) if math.isfinite(size) else ""


def _point(model: ComparedModel, x: float, base: float) -> Point:
    spread = None
    if model.difference is not None and math.isfinite(base):
        spread = (base + model.difference[1], base + model.difference[2])
    return Point(model.name, x, model.bits_per_byte, spread, model.is_marked, model.color)


_MAX_CANDIDATES = 40
_MAX_MODULES = 200
_TEXT_CHARACTERS = 1_000


def build_compression(run: RunRecord) -> Section | None:
    """Size, memory, quality and speed of every method, and which was kept and why."""
    report = read_object(run.folder / "quantization" / "report.json")
    listed = report.get("candidates")
    candidates = [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []
    candidates = candidates[:_MAX_CANDIDATES]
    if not candidates:
        return None
    chosen = name_of(report, "chosen")
    measured = [entry for entry in candidates if entry.get("status") == "ok"]
    models = [_candidate(entry, chosen) for entry in measured]
    return Section(
        identifier="compression",
        title="Compression",
        template="compression.html.j2",
        content={
            "sentence": _as_sentence(_text(report.get("reason"))) or _compression_sentence(measured, chosen),
            "rows": [_compression_row(entry, chosen) for entry in measured],
            "has_memory": any(math.isfinite(number(entry.get("resident_bytes"))) for entry in measured),
            "refused": [
                {"name": name_of(entry), "reason": _text(entry.get("reason"))}
                for entry in candidates
                if entry.get("status") != "ok"
            ],
            "modules": [found for entry in measured if (found := _modules(entry))],
            "facts": _compression_setup(report),
        },
        charts=frontier_charts(models, "chart-compression", "weights", "as in the table"),
    )


def _candidate(entry: Mapping[str, Any], chosen: str) -> ComparedModel:
    return ComparedModel(
        name=name_of(entry),
        size=number(entry.get("disk_bytes")),
        bits_per_byte=number(entry.get("bits_per_byte")),
        difference=difference_of(entry.get("quality_difference")),
        tokens_per_second=number(entry.get("tokens_per_second")),
        is_marked=name_of(entry) == chosen,
    )


def _compression_row(entry: Mapping[str, Any], chosen: str) -> dict[str, Any]:
    notes = ["kept"] if name_of(entry) == chosen else []
    notes += ["on the Pareto front"] if entry.get("pareto") is True else []
    compiling = number(entry.get("compile_seconds"))
    notes += [f"compiling took {format_latency(compiling)}"] if math.isfinite(compiling) else []
    rate = number(entry.get("tokens_per_second"))
    return {
        "name": name_of(entry),
        "notes": ", ".join(notes),
        "size": shown_size(number(entry.get("disk_bytes"))),
        "memory": shown_size(number(entry.get("resident_bytes"))),
        "bits": shown_bits(number(entry.get("bits_per_byte"))),
        "difference": shown_difference(difference_of(entry.get("quality_difference"))),
        "prefill": format_latency(number(entry.get("prefill_seconds"))),
        "decode": format_latency(number(entry.get("decode_seconds"))),
        "rate": f"{rate:,.0f}" if math.isfinite(rate) else "unknown",
    }


def _compression_sentence(measured: list[Mapping[str, Any]], chosen: str) -> str:
    """For example: "Kept int8_dynamic: 0.27 of the size, 2.1 times as fast, +0.12% bits per byte."."""
    kept = next((entry for entry in measured if name_of(entry) == chosen), None)
    if kept is None:
        return "Nothing was chosen."
    original = measured[0]
    if kept is original:
        return "The model was left as it is."
    parts = []
    size = number(kept.get("disk_bytes")) / (number(original.get("disk_bytes")) or math.nan)
    speed = number(kept.get("tokens_per_second")) / (number(original.get("tokens_per_second")) or math.nan)
    loss = number(kept.get("bits_per_byte")) / (number(original.get("bits_per_byte")) or math.nan) - 1
    if math.isfinite(size):
        parts.append(f"{size:.2f} of the size")
    if math.isfinite(speed):
        parts.append(f"{speed:.2f} times as fast at writing")
    if math.isfinite(loss):
        parts.append(f"{loss:+.2%} bits per byte")
    return f"Kept {chosen}: {', '.join(parts)}."


def _as_sentence(text: str) -> str:
    """The text with a capital letter at its start and a full stop at its end."""
    return text and text[0].upper() + text[1:] + ("" if text.endswith((".", ")")) else ".")


def _modules(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """Which modules a method quantized or left, and why; ``None`` if that was not recorded."""
    quantized, kept = entry.get("modules_quantized"), entry.get("modules_kept")
    names = [_text(name) for name in quantized] if isinstance(quantized, list) else []
    left = [item for item in kept if isinstance(item, Mapping)] if isinstance(kept, list) else []
    if not names and not left:
        return None
    return {
        "name": name_of(entry),
        "num_quantized": len(names),
        "num_kept": len(left),
        "quantized": names[:_MAX_MODULES],
        "kept": [
            {"name": _text(item.get("name")), "reason": _text(item.get("reason"))}
            for item in left[:_MAX_MODULES]
        ],
        "num_left_out": max(0, len(names) - _MAX_MODULES) + max(0, len(left) - _MAX_MODULES),
    }


def _compression_setup(report: Mapping[str, Any]) -> list[Fact]:
    """Rows on the bound, machine, text and duration of the measurement."""
    text, seconds = report.get("text"), number(report.get("seconds"))
    allowed = number(report.get("max_quality_loss"))
    facts = [Fact("bits per byte that may be lost", f"{allowed:.2%}")] if math.isfinite(allowed) else []
    facts += facts_of(text) if isinstance(text, Mapping) else []
    facts += [Fact("time for all of it", format_duration(seconds))] if math.isfinite(seconds) else []
    return [*facts, *hardware_facts(report.get("machine"))]


def _text(value: Any) -> str:
    return "" if value is None else safe_text(str(value), _TEXT_CHARACTERS)


def build_benchmark(run: RunRecord) -> Section | None:
    """Size, memory, quality and speed of every model, each against the first."""
    models = _models(run)
    if not models:
        return None
    compared = [_compared(model) for model in models]
    batch = shown(_smallest_batch(models[0]).get("batch_size"))
    return Section(
        identifier="benchmark",
        title="Comparison",
        template="benchmark.html.j2",
        content={
            "sentences": _verdicts(compared),
            "first": compared[0].name,
            "sizes": [_size_row(model) for model in models],
            "speeds": [_speed_row(model, speed) for model in models for speed in _speeds(model)],
        },
        charts=frontier_charts(
            [
                replace(model, color=SERIES_COLORS[index % len(SERIES_COLORS)])
                for index, model in enumerate(compared)
            ],
            "chart-benchmark",
            "weights",
            f"batch {batch}",
        ),
    )


def _verdicts(models: Sequence[ComparedModel]) -> list[str]:
    """One sentence for each model but the first: where it is better, where worse, and what follows."""
    first = models[0]
    return [_verdict(first, model) for model in models[1:]]


def _verdict(first: ComparedModel, model: ComparedModel) -> str:
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
    if better and not worse:
        verdict = f"{model.name} is the better one"
    elif worse and not better:
        verdict = f"{first.name} is the better one"
    elif better:
        verdict = "neither is better in everything"
    else:
        verdict = "no difference was found"
    return f"{model.name} against {first.name}: {', '.join(said)}. So {verdict}."


def build_benchmark_setup(run: RunRecord) -> Section | None:
    """Setup of the measurement: text, prompts, machine, versions and models."""
    summary = read_object(run.folder / "summary.json")
    text, settings = summary.get("text"), summary.get("settings")
    rows: list[Fact] = []
    if isinstance(text, Mapping):
        files = text.get("files")
        rows.append(Fact("text", shown(text.get("description"))))
        rows.append(Fact("its files", shown(files) if isinstance(files, list) else ""))
        rows.append(Fact("its size", format_bytes(number(text.get("bytes")))))
    rows += facts_of(settings) if isinstance(settings, Mapping) else []
    rows += hardware_facts(summary.get("machine"))
    rows += [Fact(readable(key), shown(summary[key])) for key in ("num_threads",) if key in summary]
    rows += [
        Fact(key.removesuffix("_version"), shown(value))
        for key, value in summary.items()
        if key.endswith("_version") and key != "format_version"
    ]
    rows += [Fact(name_of(model), shown(model.get("path"))) for model in _models(run)]
    return Section("setup", "How it was measured", "facts.html.j2", {"facts": rows}) if rows else None


def _models(run: RunRecord) -> list[Mapping[str, Any]]:
    listed = read_object(run.folder / "summary.json").get("models")
    return [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []


def _speeds(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    listed = model.get("speeds")
    return [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []


def _smallest_batch(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """The speed at the smallest batch, which is the speed for a single user."""
    return min(_speeds(model), key=lambda speed: number(speed.get("batch_size")), default={})


def _compared(model: Mapping[str, Any]) -> ComparedModel:
    return ComparedModel(
        name=name_of(model),
        size=number(model.get("weight_bytes")),
        bits_per_byte=number(model.get("bits_per_byte")),
        difference=difference_of(model.get("quality_difference")),
        tokens_per_second=number(_smallest_batch(model).get("tokens_per_second")),
    )


def _size_row(model: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name_of(model),
        "bits": shown_bits(number(model.get("bits_per_byte"))),
        "difference": shown_difference(difference_of(model.get("quality_difference"))),
        "weights": shown_size(number(model.get("weight_bytes"))),
        "disk": shown_size(number(model.get("disk_bytes"))),
        "memory": shown_size(number(model.get("resident_bytes"))),
        "growth": shown_size(number(model.get("model_resident_bytes"))),
        "load": format_latency(number(model.get("load_seconds"))),
        "start": format_latency(number(model.get("start_seconds"))),
    }


def _speed_row(model: Mapping[str, Any], speed: Mapping[str, Any]) -> dict[str, str]:
    rate = number(speed.get("tokens_per_second"))
    return {
        "name": name_of(model),
        "batch": shown(speed.get("batch_size")),
        "prefill": format_latency(number(speed.get("prefill_seconds_p50"))),
        "prefill_p95": format_latency(number(speed.get("prefill_seconds_p95"))),
        "decode": format_latency(number(speed.get("decode_seconds_p50"))),
        "decode_p95": format_latency(number(speed.get("decode_seconds_p95"))),
        "rate": f"{rate:,.0f}" if math.isfinite(rate) else "unknown",
    }
