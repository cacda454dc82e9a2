"""What a comparison leaves: results.jsonl, summary.json, report.html, and the tables in the terminal."""

from __future__ import annotations

import dataclasses
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from insight.optimization.measurement import Comparison, ModelMeasurement
from insight.reporting.report import write_report
from insight.reporting.run_files import Metric
from insight.reporting.sections.comparison import build_benchmark, build_benchmark_setup
from insight.runtime.formats import format_bytes, format_difference, format_latency, safe_text
from insight.runtime.hardware import measure_hardware
from insight.runtime.json_files import to_line, write_object
from insight.runtime.messages import aligned
from insight.runtime.output_folder import new_folder
from insight.runtime.run_folder import RunFolder
from insight.runtime.version import __version__

FORMAT_VERSION = 1
_NAME_CHARACTERS = 60


def write_results(comparison: Comparison, folder: Path) -> None:
    """Write the results as a new folder, which appears complete or not at all.

    Raises:
        OutputError: ``folder`` exists already or cannot be written.
    """
    names = [model.label for model in comparison.models]
    title = f"{names[0]} against {', '.join(names[1:])}" if names[1:] else names[0]
    with new_folder(folder) as temporary:
        lines = map(to_line, _records(comparison))
        (temporary / "results.jsonl").write_text("".join(lines), encoding="ascii")
        write_object(temporary / "summary.json", _summary(comparison))
        sections = (build_benchmark, build_benchmark_setup)
        write_report(RunFolder(temporary), sections, title=title, kind="comparison of models")


def tables(comparison: Comparison) -> str:
    """The numbers for a terminal: one table of quality and size, one of speed."""
    sizes = [("model", "bits/byte", "more than the first (95%)", "weights", "on disk", "memory", "load")]
    speeds = [("model", "batch", "prefill p50", "p95", "step p50", "p95", "tokens/s")]
    for model in comparison.models:
        name, footprint = safe_text(model.label, _NAME_CHARACTERS), model.footprint
        sizes.append(
            (
                name,
                f"{model.quality.bits_per_byte:.4f}",
                _difference(model),
                format_bytes(model.weight_bytes),
                format_bytes(footprint.disk_bytes),
                format_bytes(footprint.resident_bytes),
                format_latency(footprint.load_seconds),
            )
        )
        for speed in model.speeds:
            speeds.append(
                (
                    name,
                    str(speed.batch_size),
                    format_latency(speed.prefill_seconds_p50),
                    format_latency(speed.prefill_seconds_p95),
                    format_latency(speed.decode_seconds_p50),
                    format_latency(speed.decode_seconds_p95),
                    f"{speed.tokens_per_second:,.0f}",
                )
            )
    return f"{aligned(sizes)}\n\n{aligned(speeds)}"


def _records(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """One record a case: every window of the text, every batch size, every model's footprint."""
    for model in comparison.models:
        quality = model.quality
        for index, (nats, num_bytes) in enumerate(zip(quality.nats, quality.num_bytes, strict=True)):
            case = {"window": index, "nats": float(nats), "num_bytes": int(num_bytes)}
            yield {"model": model.label, "measure": "quality", **case}
        for speed in model.speeds:
            yield {"model": model.label, "measure": "speed", **dataclasses.asdict(speed)}
        footprint = {"weight_bytes": model.weight_bytes, **dataclasses.asdict(model.footprint)}
        yield {"model": model.label, "measure": "footprint", **footprint}


def _summary(comparison: Comparison) -> dict[str, Any]:
    return {
        "metrics": dict(_metrics(comparison)),
        "format_version": FORMAT_VERSION,
        "models": [_model(model) for model in comparison.models],
        "text": {
            "description": comparison.text,
            "files": list(comparison.text_files),
            "bytes": comparison.text_bytes,
        },
        "settings": dataclasses.asdict(comparison.settings),
        "machine": measure_hardware(),
        "num_threads": torch.get_num_threads(),
        "command": list(sys.argv),
        "insight_version": __version__,
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
    }


def _metrics(comparison: Comparison) -> Iterator[tuple[str, Metric]]:
    """Names as everywhere in summaries: what it is of, a slash, what it is."""
    for model in comparison.models:
        quality, difference = model.quality, model.difference
        num_bytes = int(quality.token_bytes.sum())
        yield f"{model.label}/bits_per_byte", Metric(quality.bits_per_byte, None, num_bytes, "bits per byte")
        if difference is not None:
            ends = (difference.low, difference.high)
            name = f"{model.label}/bits_per_byte_difference"
            yield name, Metric(difference.value, ends, difference.n, "bits per byte")
        yield f"{model.label}/weight_bytes", Metric(model.weight_bytes, unit="bytes")
        footprint = model.footprint
        for name in ("disk_bytes", "resident_bytes", "model_resident_bytes"):
            yield f"{model.label}/{name}", Metric(getattr(footprint, name), unit="bytes")
        for name in ("load_seconds", "start_seconds"):
            value = getattr(footprint, name)
            yield f"{model.label}/{name}", Metric(value, n=footprint.num_processes, unit="s")
        for speed in model.speeds:
            for name, value in dataclasses.asdict(speed).items():
                if name not in ("batch_size", "num_rounds"):
                    unit = "tokens/s" if name == "tokens_per_second" else "s"
                    key = f"{model.label}/batch_{speed.batch_size}/{name}"
                    yield key, Metric(value, n=speed.num_rounds, unit=unit)


def _model(model: ModelMeasurement) -> dict[str, Any]:
    difference = model.difference
    return {
        "name": model.label,
        "path": str(model.path),
        "tokenizer": model.tokenizer,
        "bits_per_byte": model.quality.bits_per_byte,
        "quality_difference": None if difference is None else dataclasses.asdict(difference),
        "weight_bytes": model.weight_bytes,
        **dataclasses.asdict(model.footprint),
        "speeds": [dataclasses.asdict(speed) for speed in model.speeds],
    }


def _difference(model: ModelMeasurement) -> str:
    difference = model.difference
    if difference is None:
        return ""
    value, low, high = map(format_difference, (difference.value, difference.low, difference.high))
    return f"{value} ({low} to {high})"
