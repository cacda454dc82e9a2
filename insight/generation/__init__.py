"""Scores → text: sampling settings, the sampler, streaming, stop strings; many texts at once; likelihoods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from insight.runtime.imports import lazy_exports

if TYPE_CHECKING:
    from insight.generation.batch import generate_batch as generate_batch
    from insight.generation.generator import Generation as Generation
    from insight.generation.generator import TextGenerator as TextGenerator
    from insight.generation.generator import generate as generate
    from insight.generation.generator import stream as stream
    from insight.generation.sampler import filtered_log_probabilities as filtered_log_probabilities
    from insight.generation.sampler import sample as sample
    from insight.generation.sampler import sample_rows as sample_rows
    from insight.generation.scoring import log_likelihoods as log_likelihoods
    from insight.generation.settings import GenerationSettings as GenerationSettings
    from insight.generation.text_stream import TextStream as TextStream

_EXPORTS = {
    "Generation": "generator",
    "GenerationSettings": "settings",
    "TextGenerator": "generator",
    "TextStream": "text_stream",
    "filtered_log_probabilities": "sampler",
    "generate": "generator",
    "generate_batch": "batch",
    "log_likelihoods": "scoring",
    "sample": "sampler",
    "sample_rows": "sampler",
    "stream": "generator",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
