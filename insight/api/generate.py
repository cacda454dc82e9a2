"""Generate text with a model that a path names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insight.generation import GenerationSettings as GenerationSettings
from insight.runtime.errors import ConfigError
from insight.runtime.run_folder import find_checkpoint

if TYPE_CHECKING:
    from insight.generation import TextGenerator
    from insight.generation.translator import Translator


def open_text(
    checkpoint: str | Path,
    prompt: str,
    settings: GenerationSettings = GenerationSettings(),
    *,
    device: str = "cpu",
) -> TextGenerator | TranslatedPrompt:
    """Load a model and begin a text with it, as ``insight generate`` does.

    Args:
        checkpoint: A run folder (its best checkpoint), a ``.ckpt`` file, or a folder of insight quantize.
        prompt: The text to continue; a translation model translates each of its lines.
        settings: How to continue it.
        device: Where the model runs: cpu, cuda, cuda:1, mps.

    Returns:
        The continuation: iterate over it for pieces of text, then read its ``result``.

    Raises:
        InsightError: The error that the command prints.
    """
    path = find_checkpoint(str(checkpoint))

    from insight.api.translate import translator_of
    from insight.checkpoints import LoadedCheckpoint
    from insight.checkpoints.artifact import load_model
    from insight.generation import TextGenerator
    from insight.runtime.hardware import usable_device

    loaded = load_model(path, usable_device(device))
    if isinstance(loaded, LoadedCheckpoint):
        return TextGenerator(loaded.network, loaded.tokenizer, prompt, settings)
    _refuse_sampling(settings)
    return TranslatedPrompt(prompt, translator_of(loaded))


@dataclass(frozen=True)
class TranslatedText:
    """The whole translation of a prompt; fields as in :class:`insight.generation.Generation`."""

    text: str
    finish_reason: str = "end_of_text"


class TranslatedPrompt:
    """The translations of the lines of a prompt, piece by piece.

    Args:
        prompt: The text to translate; each line is a sentence.
        translator: The model.
    """

    def __init__(self, prompt: str, translator: Translator) -> None:
        self._lines = prompt.removesuffix("\n").split("\n")
        self._translator = translator
        self._texts: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for number, line in enumerate(self._lines):
            text = self._translator.translate([line])[0].text
            self._texts.append(text)
            yield f"\n{text}" if number else text

    @property
    def result(self) -> TranslatedText:
        """The translations that were made so far."""
        return TranslatedText("\n".join(self._texts))


def _refuse_sampling(settings: GenerationSettings) -> None:
    default: Any = GenerationSettings()
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value != getattr(default, field.name):
            problem = "belongs to models that continue text, and this one translates"
            remedy = "leave it out, or use the options of `insight translate`"
            raise ConfigError(problem, remedy, option=f"--{field.name}", value=value)
