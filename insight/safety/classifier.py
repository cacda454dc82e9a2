"""The base of text classifiers: what an evaluator asks about a text, and how often the answer is wrong."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from insight.runtime.component import Component
from insight.runtime.statistics import Interval


@dataclass(frozen=True)
class ErrorRates:
    """How a classifier did on labelled texts that it had not seen.

    Attributes:
        sensitivity: Share of the texts with the property that it finds.
        specificity: Share of the texts without it that it lets pass.
        threshold: Probability from which it says yes.
        source: What the texts were.
    """

    sensitivity: Interval
    specificity: Interval
    threshold: float
    source: str


@dataclass(frozen=True)
class TextClassifier(Component):
    """Gives texts the probability of a property, such as being toxic."""

    @abstractmethod
    def probabilities(self, texts: Sequence[str]) -> list[float]:
        """One number from 0 to 1 a text; of each text alone, whatever the others are."""

    @abstractmethod
    def error_rates(self) -> ErrorRates:
        """Measured on a held-out part; stated beside every figure it leads to."""
