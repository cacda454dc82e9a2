"""Scores → text: sampling settings, the sampler, streaming, stop strings."""

from insight.generation.generator import Generation, TextGenerator, generate, stream
from insight.generation.sampler import filtered_log_probabilities, sample
from insight.generation.settings import GenerationSettings
from insight.generation.text_stream import TextStream

__all__ = [
    "Generation",
    "GenerationSettings",
    "TextGenerator",
    "TextStream",
    "filtered_log_probabilities",
    "generate",
    "sample",
    "stream",
]
