"""Generate text with a model that a path names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from insight.api.translate import TranslationOptions, translated, translator_of
from insight.generation import GenerationSettings as GenerationSettings
from insight.runtime.errors import ConfigError
from insight.runtime.run_folder import find_checkpoint

if TYPE_CHECKING:
    from insight.generation import Hypothesis, TextGenerator
    from insight.generation.translator import Translation, Translator

_OF_DRAWING = ("top_k", "top_p", "min_p", "seed")


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

    from insight.checkpoints import LoadedCheckpoint
    from insight.checkpoints.artifact import load_model
    from insight.generation import TextGenerator
    from insight.runtime.hardware import usable_device

    loaded = load_model(path, usable_device(device))
    if isinstance(loaded, LoadedCheckpoint):
        return TextGenerator(loaded.network, loaded.tokenizer, prompt, settings)
    return TranslatedPrompt(prompt, translator_of(loaded), _translation_options(settings))


@dataclass(frozen=True)
class TranslatedText:
    """The whole translation of a prompt; fields as in :class:`insight.generation.Generation`.

    ``hypotheses`` are there where the prompt is one line.
    """

    text: str
    finish_reason: str = "end_of_text"
    hypotheses: tuple[tuple[str, Hypothesis], ...] = ()
    signature: str = ""


class TranslatedPrompt:
    """The translations of the lines of a prompt, piece by piece.

    Args:
        prompt: The text to translate; each line is a sentence.
        translator: The model.
        options: How to translate.
    """

    def __init__(self, prompt: str, translator: Translator, options: TranslationOptions) -> None:
        self._lines = prompt.removesuffix("\n").split("\n")
        self._translator, self._options = translator, options
        self._made: list[Translation] = []

    def __iter__(self) -> Iterator[str]:
        for number, line in enumerate(self._lines):
            self._made += translated(self._translator, [line], self._options)
            text = self._made[-1].text
            yield f"\n{text}" if number else text

    @property
    def result(self) -> TranslatedText:
        """The translations that were made so far."""
        text = "\n".join(one.text for one in self._made)
        hypotheses = self._made[0].hypotheses if len(self._lines) == len(self._made) == 1 else ()
        signature = next((one.signature for one in self._made), "")
        return TranslatedText(text, hypotheses=hypotheses, signature=signature)


def _translation_options(settings: GenerationSettings) -> TranslationOptions:
    """The options of a search, for a model that translates; the others belong to models that continue."""
    shared = {field.name for field in fields(TranslationOptions)} - {"temperature", *_OF_DRAWING}
    given = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value == getattr(GenerationSettings, field.name):
            continue
        if field.name not in shared:
            problem = "belongs to models that continue text, and this one translates"
            remedy = "leave it out, or use the options of `insight translate`"
            raise ConfigError(problem, remedy, option=f"--{field.name}", value=value)
        given[field.name] = value
    return TranslationOptions(**given)
