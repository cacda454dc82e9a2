"""Several models measured on the same work: quality, speed, size; each against the first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from insight.optimization import load_model
from insight.optimization.measurement.evaluation_text import EvaluationText
from insight.optimization.measurement.footprint import Footprint, measure_footprint, weight_bytes
from insight.optimization.measurement.quality import Quality, compare_quality, measure_quality
from insight.optimization.measurement.settings import ComparisonSettings
from insight.optimization.measurement.speed import Speed, measure_speed
from insight.runtime.errors import InsightError
from insight.runtime.messages import say
from insight.runtime.statistics import Interval


@dataclass(frozen=True)
class ModelMeasurement:
    """What was measured of one model.

    Attributes:
        label: What it is called.
        path: Its checkpoint or artefact.
        tokenizer: Fingerprint of its tokenizer.
        quality: On the common text.
        difference: Bits per byte that it needs more than the first model; ``None`` for the first.
        weight_bytes: What its weights take, without the state of a training.
        speeds: One a batch size.
        footprint: On the disk and in a fresh process.
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
    """What :func:`compare_models` returns.

    Attributes:
        models: In the order they were named.
        settings: As given, lengths filled in.
        text: What quality was measured on, in words.
        text_files: The files that it comes from.
        text_bytes: Its size in UTF-8.
    """

    models: tuple[ModelMeasurement, ...]
    settings: ComparisonSettings
    text: str
    text_files: tuple[str, ...]
    text_bytes: int


def compare_models(
    paths: Mapping[str, Path], text: EvaluationText, settings: ComparisonSettings = ComparisonSettings()
) -> Comparison:
    """Measure models on the same text, prompts and machine.

    Each reads the text in windows of the length that it was trained with. Models with different tokenizers
    compare too: bits per byte count the text itself, and pairs are then stretches of bytes.

    Args:
        paths: Checkpoint files and artefact folders by name; the first is the reference.
        text: What quality is measured on.
        settings: How.

    Raises:
        CheckpointError: A model cannot be loaded, or its predictions are not finite.
        ConfigError: Prompt and new tokens do not fit into a context.
        DataError: The text cannot be read.
        InsightError: A fresh process could not load a model.
    """
    loaded = {label: load_model(path, settings.device) for label, path in paths.items()}
    networks = {label: model.network for label, model in loaded.items()}
    settings = settings.for_context(min(net.config.max_sequence_length for net in networks.values()))
    assert settings.prompt_length is not None
    assert settings.num_new_tokens is not None
    stores = {label: text.encode(model.tokenizer) for label, model in loaded.items()}
    first = next(iter(stores.values()))
    say(f"quality: {text.description}, {first.num_bytes / 1e6:.2f} MB")
    qualities = {}
    for label, model in loaded.items():
        store = stores[label]
        with _named(label):
            qualities[label] = measure_quality(
                model.network,
                store.tokens(0, store.num_tokens),
                model.tokenizer.token_byte_lengths(),
                model.metadata["sequence_length"],
                end_of_text_id=store.end_of_text_id,
            )
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
    """Begin the line of an error inside the block with the model that it is about."""
    try:
        yield
    except InsightError as error:
        raise type(error)(f"{label}: {error.problem}", error.remedy) from error
