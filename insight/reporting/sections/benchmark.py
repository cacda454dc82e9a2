"""Models compared on the same work: ``summary.json`` of ``insight benchmark``."""

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
from insight.reporting.sections.facts import Fact, facts_of, readable, shown
from insight.reporting.sections.machine import hardware_facts
from insight.reporting.sections.section import Section
from insight.runtime.formats import format_bytes, format_latency


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
            "first": compared[0].name,
            "sizes": [_size_row(model) for model in models],
            "speeds": [_speed_row(model, speed) for model in models for speed in _speeds(model)],
        },
        charts=frontier_charts(compared, "chart-benchmark", "weights", f"batch {batch}"),
    )


def build_benchmark_setup(run: RunRecord) -> Section | None:
    """On what it was measured: text, prompts, machine, versions, and what the models are."""
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
    """The speed at the smallest batch: what one reader waits for."""
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
