"""Several models measured on the same work: quality, speed, size; each against the first.

Settings that cannot work are refused before torch is imported, so what measures is imported when it is used.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
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
        batch_sizes: Sequences at a time when speed is measured.
        prompt_length: Tokens of a prompt; without it 128, or fewer where a context is shorter.
        num_new_tokens: Tokens written after it; without it 32, or what is left of the shortest context.
        seconds: Time for measuring the speed of each model, warm-up not counted.
        num_processes: Fresh processes in which each model is loaded.
        device: Where the models run: cpu, cuda, cuda:1, mps.
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
        if not self.batch_sizes:
            raise ConfigError("is empty: speed needs at least one", "use 1 8", option="batch_sizes", value="")
        for size in self.batch_sizes:
            require_number("batch_sizes", size, 8, whole=True, at_least=1)
        require_number("num_processes", self.num_processes, 3, whole=True, at_least=1)
        require_number("prompt_length", self.prompt_length, 128, whole=True, optional=True, at_least=1)
        require_number("num_new_tokens", self.num_new_tokens, 32, whole=True, optional=True, at_least=1)
        require_number("seconds", self.seconds, 10, above=0)
        require_number("seed", self.seed, 0, whole=True, at_least=0)

    def for_context(self, context: int) -> ComparisonSettings:
        """These settings with lengths filled in that fit into ``context`` tokens.

        Raises:
            ConfigError: Lengths that were given do not fit.
        """
        left = context - self.prompt_length if self.prompt_length else context // 2
        new = self.num_new_tokens or min(_NUM_NEW_TOKENS, max(1, left))
        prompt = self.prompt_length or min(_PROMPT_LENGTH, context - new)
        if prompt < 1 or prompt + new > context:
            raise ConfigError(
                f"and num_new_tokens={new} exceed the shortest context ({context} tokens)",
                f"use together at most {context}",
                option="prompt_length",
                value=prompt,
            )
        return dataclasses.replace(self, prompt_length=prompt, num_new_tokens=new)


@dataclass(frozen=True)
class ModelMeasurement:
    """The measurements of one model.

    Attributes:
        label: The name that it has in tables.
        path: Its checkpoint or artefact.
        tokenizer: Fingerprint of its tokenizer.
        quality: How well it predicts the common text.
        difference: Bits per byte that it needs more than the first model; ``None`` for the first.
        weight_bytes: Bytes of its weights, without the state of a training.
        speeds: Its speed at each batch size.
        footprint: Its size on the disk, and its memory and load time in a fresh process.
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
    """The result of :func:`compare_models`.

    Attributes:
        models: The models in the order in which they were named.
        settings: The settings that were given, lengths filled in.
        text: The text that quality was measured on, in words.
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
        text: The text that quality is measured on.
        settings: How they are compared.

    Raises:
        CheckpointError: A model cannot be loaded, or its predictions are not finite.
        ConfigError: Prompt and new tokens do not fit into a context.
        DataError: The text cannot be read.
        InsightError: A fresh process could not load a model.
    """
    from insight.checkpoints.artifact import load_model
    from insight.optimization.measurement.footprint import measure_footprint, weight_bytes
    from insight.optimization.measurement.quality import compare_quality, measure_quality
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
