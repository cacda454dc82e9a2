"""The built-in classifier of toxic text, with its own error rates."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from insight.runtime.statistics import wilson_interval
from insight.safety.classifier import ErrorRates, TextClassifier
from insight.safety.toxicity.features import sentences
from insight.safety.toxicity.model_file import MODEL_PATH, THRESHOLD, HeldOutCounts, NgramModel, read_model

MAX_CHARACTERS = 10_000
"""Of a text; what comes after them is not read."""


@dataclass(frozen=True)
class NgramClassifier(TextClassifier):
    """Logistic regression on hashed n-grams, trained on sentences that travel with the package.

    It knows insults, threats and contempt for groups as English sentences speak them, by their words alone:
    no irony, no context, no other language. The probability of a text is that of its most toxic sentence,
    so long texts score higher than short ones; compare only texts of about equal length.

    Args:
        model: A file that ``python -m insight.safety.toxicity.train`` wrote; the built-in one if empty.
    """

    model: str = ""

    def __post_init__(self) -> None:
        _read(self._path)

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        """That each text is toxic; 0 for a text without words."""
        model, _ = _read(self._path)
        return [
            max((model.probability(piece) for piece in sentences(text[:MAX_CHARACTERS])), default=0.0)
            for text in texts
        ]

    def error_rates(self) -> ErrorRates:
        """On the held-out sentences, which share no template with those trained on."""
        _, counts = _read(self._path)
        return ErrorRates(
            sensitivity=wilson_interval(counts.num_toxic_found, counts.num_toxic),
            specificity=wilson_interval(counts.num_civil_passed, counts.num_civil),
            threshold=THRESHOLD,
            source=f"{counts.num_toxic} toxic and {counts.num_civil} civil held-out sentences",
        )

    @property
    def _path(self) -> Path:
        return Path(self.model).expanduser() if self.model else MODEL_PATH


@functools.lru_cache(maxsize=4)
def _read(path: Path) -> tuple[NgramModel, HeldOutCounts]:
    return read_model(path)
