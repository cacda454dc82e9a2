"""Generate text with a model that a path names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from insight.generation import GenerationSettings as GenerationSettings
from insight.runtime.run_folder import find_checkpoint

if TYPE_CHECKING:
    from insight.generation import TextGenerator


def open_text(
    checkpoint: str | Path,
    prompt: str,
    settings: GenerationSettings = GenerationSettings(),
    *,
    device: str = "cpu",
) -> TextGenerator:
    """Load a model and begin a text with it, as ``insight generate`` does.

    Args:
        checkpoint: A run folder (its best checkpoint), a ``.ckpt`` file, or a folder of insight quantize.
        prompt: The text to continue.
        settings: How to continue it.
        device: Where the model runs: cpu, cuda, cuda:1, mps.

    Returns:
        The continuation: iterate over it for pieces of text, then read its ``result``.

    Raises:
        InsightError: The error that the command prints.
    """
    path = find_checkpoint(str(checkpoint))

    from insight.checkpoints.artifact import load_model
    from insight.generation import TextGenerator
    from insight.runtime.hardware import usable_device

    loaded = load_model(path, usable_device(device))
    return TextGenerator(loaded.network, loaded.tokenizer, prompt, settings)
