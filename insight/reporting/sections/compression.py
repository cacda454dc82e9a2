"""What compressing the model gained and cost, and what was kept: ``quantization/report.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from insight.reporting.json_files import read_object
from insight.reporting.run_record import RunRecord
from insight.reporting.sections.compared_models import (
    ComparedModel,
    difference_of,
    frontier_charts,
    name_of,
    number,
    shown_bits,
    shown_difference,
    shown_size,
)
from insight.reporting.sections.facts import Fact, facts_of
from insight.reporting.sections.machine import hardware_facts
from insight.reporting.sections.section import Section
from insight.runtime.formats import format_duration, format_latency, safe_text

_MAX_CANDIDATES = 40
_MAX_MODULES = 200
_TEXT_CHARACTERS = 1_000


def build_compression(run: RunRecord) -> Section | None:
    """Every method that was tried: size, memory, quality, speed; which was kept, and why."""
    report = read_object(run.folder / "quantization" / "report.json")
    listed = report.get("candidates")
    candidates = [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []
    candidates = candidates[:_MAX_CANDIDATES]
    if not candidates:
        return None
    chosen = name_of(report, "chosen")
    measured = [entry for entry in candidates if entry.get("status") == "ok"]
    models = [_model(entry, chosen) for entry in measured]
    return Section(
        identifier="compression",
        title="Compression",
        template="compression.html.j2",
        content={
            "sentence": _text(report.get("reason")) or _sentence(measured, chosen),
            "rows": [_row(entry, chosen) for entry in measured],
            "has_memory": any(math.isfinite(number(entry.get("resident_bytes"))) for entry in measured),
            "refused": [
                {"name": name_of(entry), "reason": _text(entry.get("reason"))}
                for entry in candidates
                if entry.get("status") != "ok"
            ],
            "modules": [found for entry in measured if (found := _modules(entry))],
            "facts": _setup(report),
        },
        charts=frontier_charts(models, "chart-compression", "weights", "as in the table"),
    )


def _model(entry: Mapping[str, Any], chosen: str) -> ComparedModel:
    return ComparedModel(
        name=name_of(entry),
        size=number(entry.get("disk_bytes")),
        bits_per_byte=number(entry.get("bits_per_byte")),
        difference=difference_of(entry.get("quality_difference")),
        tokens_per_second=number(entry.get("tokens_per_second")),
        is_marked=name_of(entry) == chosen,
    )


def _row(entry: Mapping[str, Any], chosen: str) -> dict[str, Any]:
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


def _sentence(measured: list[Mapping[str, Any]], chosen: str) -> str:
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


def _modules(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """Which modules a method quantized and which it left, and why; ``None`` where it says nothing."""
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


def _setup(report: Mapping[str, Any]) -> list[Fact]:
    """What was allowed, on which machine and how much text it was measured, and how long that took."""
    text, seconds = report.get("text"), number(report.get("seconds"))
    allowed = number(report.get("max_quality_loss"))
    facts = [Fact("bits per byte that may be lost", f"{allowed:.2%}")] if math.isfinite(allowed) else []
    facts += facts_of(text) if isinstance(text, Mapping) else []
    facts += [Fact("time for all of it", format_duration(seconds))] if math.isfinite(seconds) else []
    return [*facts, *hardware_facts(report.get("machine"))]


def _text(value: Any) -> str:
    return "" if value is None else safe_text(str(value), _TEXT_CHARACTERS)
