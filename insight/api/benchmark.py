"""Compare models by quality, size, memory, load time and speed, each with the first."""

from __future__ import annotations

import dataclasses
import itertools
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insight.optimization.measurement import ComparisonSettings as ComparisonSettings
from insight.runtime.errors import ConfigError
from insight.runtime.files import ensure_writable, new_folder, require_new
from insight.runtime.hardware import measure_hardware
from insight.runtime.json_files import to_line, write_object
from insight.runtime.run_folder import DEFAULT_ROOT, RunFolder, find_checkpoint
from insight.runtime.version import __version__

if TYPE_CHECKING:
    from insight.optimization.measurement import Comparison, ModelMeasurement
    from insight.reporting import Metric

FORMAT_VERSION = 1


def benchmark(
    models: Sequence[str | Path], output: str | Path | None = None, text: Sequence[str] = (), **settings: Any
) -> Path:
    """Compare models as ``insight benchmark`` does.

    Args:
        models: Run folders (their best checkpoints), ``.ckpt`` files and folders of quantized models; the
            others are compared with the first.
        output: Folder for the results, which must not exist; without it runs/benchmark/N
        text: File, folder, glob or corpus:NAME to measure quality on, which may be given again; without it
            the text of the first model's run.
        settings: Fields of ``insight.optimization.measurement.ComparisonSettings``.

    Returns:
        The folder of the results.

    Raises:
        InsightError: The error that the command prints.
    """
    return compare(models, output, text, ComparisonSettings(**settings))[1]


def compare(
    models: Sequence[str | Path],
    output: str | Path | None = None,
    text: Sequence[str] = (),
    settings: ComparisonSettings = ComparisonSettings(),
) -> tuple[Comparison, Path]:
    """Compare models, and return the measurements and the folder; arguments as in :func:`benchmark`."""
    if not models:
        raise ConfigError("there is no model to measure", "name at least one")
    names = [str(model) for model in models]
    found = [find_checkpoint(model, option="MODEL") for model in names]
    paths = dict(zip(_labels(names), found, strict=True))
    folder = _output_folder(output)

    from insight.optimization.measurement import EvaluationText, compare_models
    from insight.runtime.hardware import usable_device

    usable_device(settings.device)
    source = EvaluationText.of_files(text) if text else EvaluationText.of_model(next(iter(paths.values())))
    comparison = compare_models(paths, source, settings)
    _write_results(comparison, folder)
    return comparison, folder


def _write_results(comparison: Comparison, folder: Path) -> None:
    """Write the results as a new folder, which appears complete or not at all."""
    from insight.reporting.report import write_report
    from insight.reporting.sections.comparison import build_benchmark, build_benchmark_setup

    names = [model.label for model in comparison.models]
    title = f"{names[0]} against {', '.join(names[1:])}" if names[1:] else names[0]
    with new_folder(folder) as temporary:
        lines = map(to_line, _records(comparison))
        (temporary / "results.jsonl").write_text("".join(lines), encoding="ascii")
        write_object(temporary / "summary.json", _summary(comparison))
        sections = (build_benchmark, build_benchmark_setup)
        write_report(RunFolder(temporary), sections, title=title, kind="comparison of models")


def _records(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """One record per case: every window of the text, every batch size, every model's footprint."""
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
    import torch

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
    """Metrics named as in all summaries: the model, a slash, the metric."""
    from insight.reporting import Metric

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


def _labels(models: Sequence[str]) -> list[str]:
    """The names of the models as the user typed them; repeated names are numbered."""
    labels: list[str] = []
    for model in models:
        label, number = model, 2
        while label in labels:
            label, number = f"{model} ({number})", number + 1
        labels.append(label)
    return labels


def _output_folder(output: str | Path | None) -> Path:
    """The folder for the results, once it is known that it can be written."""
    if output is not None:
        folder = Path(output)
        require_new(folder)
    else:
        numbered = (DEFAULT_ROOT / "benchmark" / str(number) for number in itertools.count(1))
        folder = next(folder for folder in numbered if not folder.exists())
    ensure_writable(folder)
    return folder
