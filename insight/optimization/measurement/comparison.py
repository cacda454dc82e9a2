"""Compares the quality, speed and size of several models with those of the first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from insight.checkpoints.artifact import load_decoder
from insight.optimization.measurement.footprint import Footprint, measure_footprint, weight_bytes
from insight.optimization.measurement.quality import EvaluationText, MeasuredText, Quality, compare_quality
from insight.optimization.measurement.settings import ComparisonSettings
from insight.optimization.measurement.speed import Speed, measure_speed
from insight.runtime.errors import InsightError
from insight.runtime.messages import say
from insight.runtime.statistics import Interval


@dataclass(frozen=True)
class ModelMeasurement:
    """The measurements of one model: the checkpoint or artefact at ``path``, with its name in tables.

    ``tokenizer`` is a fingerprint, ``difference`` the bits per byte minus those of the first model
    (``None`` for the first), ``weight_bytes`` leaves out optimizer state, and ``speeds`` has one entry per
    batch size.
    """

    label: str
    path: Path
    tokenizer: str
    quality: Quality
    difference: Interval | None
    weight_bytes: int
    speeds: tuple[Speed, ...]
    footprint: Footprint


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare_models`, with all lengths in its settings."""

    models: tuple[ModelMeasurement, ...]
    settings: ComparisonSettings
    text: str
    text_files: tuple[str, ...]
    text_bytes: int


def compare_models(
    paths: Mapping[str, Path], text: EvaluationText, settings: ComparisonSettings = ComparisonSettings()
) -> Comparison:
    """Measure named checkpoints and artefacts on the same text, prompts and machine against the first.

    Each reads the text in windows of its training length. Models with different tokenizers can be compared
    too, since bits per byte do not depend on tokens; pairs are then stretches of bytes.

    Raises:
        CheckpointError: A model cannot be loaded, or its predictions are not finite.
        ConfigError: Prompt and new tokens do not fit into a context.
        DataError: The text cannot be read.
        InsightError: A fresh process could not load a model.
    """
    loaded = {label: load_decoder(path, settings.device) for label, path in paths.items()}
    networks = {label: model.network for label, model in loaded.items()}
    settings = settings.for_context(min(net.config.max_sequence_length for net in networks.values()))
    assert settings.prompt_length is not None
    assert settings.num_new_tokens is not None
    stores = {label: text.encode(model.tokenizer) for label, model in loaded.items()}
    first = next(iter(stores.values()))
    say(f"quality: {text.description}, {first.num_bytes / 1e6:.2f} MB")
    qualities = {}
    for label, model in loaded.items():
        measured = MeasuredText.of(stores[label], model.tokenizer, model.metadata["sequence_length"])
        with _named(label):
            qualities[label] = measured.measure(model.network, measured.num_windows, 32)
    say(f"speed: {settings.seconds:g} s a model, in turns, after compiling and warming up")
    speeds = measure_speed(
        networks,
        batch_sizes=settings.batch_sizes,
        prompt_length=settings.prompt_length,
        num_new_tokens=settings.num_new_tokens,
        seconds=settings.seconds * len(networks),
    )
    say(f"memory and load time: {settings.num_processes} fresh processes a model")
    footprints = measure_footprint(paths, num_processes=settings.num_processes, device=settings.device)
    reference = next(iter(qualities.values()))
    models = tuple(
        ModelMeasurement(
            label=label,
            path=paths[label],
            tokenizer=model.tokenizer.fingerprint(),
            quality=qualities[label],
            difference=compare_quality(reference, qualities[label], settings.seed) if index else None,
            weight_bytes=weight_bytes(model.network),
            speeds=tuple(speeds[label]),
            footprint=footprints[label],
        )
        for index, (label, model) in enumerate(loaded.items())
    )
    return Comparison(models, settings, text.description, text.file_names, first.num_bytes)


@contextlib.contextmanager
def _named(label: str) -> Iterator[None]:
    """Prefix errors inside the ``with`` block with the name of the model."""
    try:
        yield
    except InsightError as error:
        raise type(error)(f"{label}: {error.problem}", error.remedy) from error
