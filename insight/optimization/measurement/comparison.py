"""Compares the quality, speed and size of several models with those of the first.

Modules that need torch are imported late, so that wrong settings are refused without waiting for them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from insight.runtime.errors import ConfigError, InsightError
from insight.runtime.messages import say
from insight.runtime.numbers import require_number

if TYPE_CHECKING:
    from insight.optimization.measurement.footprint import Footprint
    from insight.optimization.measurement.quality import EvaluationText, Quality
    from insight.optimization.measurement.speed import Speed
    from insight.runtime.statistics import Interval

_PROMPT_LENGTH, _NUM_NEW_TOKENS = 128, 32


@dataclass(frozen=True)
class ComparisonSettings:
    """How models are compared.

    Args:
        batch_sizes: Batch sizes at which speed is measured.
        prompt_length: Number of tokens of a prompt; 128 by default, or fewer if a context is shorter.
        num_new_tokens: Number of tokens generated after it; 32 by default, or fewer in a short context.
        seconds: Seconds for measuring the speed of each model, without warm-up.
        num_processes: Number of fresh processes in which each model is loaded.
        device: The device of the models: cpu, cuda, cuda:1, mps.
        seed: Seed of the bootstrap.
    """

    batch_sizes: tuple[int, ...] = (1, 8)
    prompt_length: int | None = None
    num_new_tokens: int | None = None
    seconds: float = 10.0
    num_processes: int = 3
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch_sizes", tuple(self.batch_sizes))
        check_batch_sizes(self.batch_sizes)
        require_number("num_processes", self.num_processes, 3, whole=True, at_least=1)
        for name in ("prompt_length", "num_new_tokens"):
            require_number(name, getattr(self, name), 32, whole=True, optional=True, at_least=1)
        require_number("seconds", self.seconds, 10, above=0)
        require_number("seed", self.seed, 0, whole=True, at_least=0)

    def for_context(self, context: int) -> ComparisonSettings:
        """These settings with default lengths that fit into ``context`` tokens.

        Raises:
            ConfigError: The given lengths do not fit.
        """
        left = context - self.prompt_length if self.prompt_length else context // 2
        new = self.num_new_tokens or min(_NUM_NEW_TOKENS, max(1, left))
        prompt = self.prompt_length or min(_PROMPT_LENGTH, context - new)
        check_lengths(prompt, new, context, "shortest context")
        return dataclasses.replace(self, prompt_length=prompt, num_new_tokens=new)


def check_batch_sizes(sizes: Sequence[int]) -> None:
    """Refuse batch sizes below 1, or none.

    Raises:
        ConfigError: A size is out of range.
    """
    if not sizes:
        raise ConfigError("is empty: speed needs at least one", "use 1 8", option="batch_sizes", value="")
    for size in sizes:
        require_number("batch_sizes", size, 8, whole=True, at_least=1)


def check_lengths(prompt: int, new: int, context: int, name: str) -> None:
    """Refuse a prompt that does not fit into a context with the new tokens.

    Raises:
        ConfigError: They do not fit.
    """
    if prompt < 1 or prompt + new > context:
        problem = f"and num_new_tokens={new} exceed the {name} ({context} tokens)"
        remedy = f"use together at most {context}"
        raise ConfigError(problem, remedy, option="prompt_length", value=prompt)


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
    from insight.checkpoints.artifact import load_model
    from insight.optimization.measurement.footprint import measure_footprint, weight_bytes
    from insight.optimization.measurement.quality import MeasuredText, compare_quality
    from insight.optimization.measurement.speed import measure_speed

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
