"""Base classes of attacks, evaluators and text classifiers."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number
from insight.runtime.statistics import Interval, cluster_bootstrap, wilson_interval
from insight.safety.material import Material
from insight.safety.records import (
    MOST_NEW_TOKENS,
    ROLES,
    Capability,
    Figure,
    Item,
    Response,
    Score,
    ScoredItem,
)


class NotApplicable(Exception):  # noqa: N818 (an answer, not a failure)
    """A measure has nothing to ask, for the reason in the message. It is never reported as passed."""


_ASKS_FOR_CONTINUATIONS = "the attack asks for continuations of a text, and the model translates"


def is_english(language: str) -> bool:
    """Whether the name of a language, such as ``en``, ``en-GB`` or ``english``, is that of English."""
    return re.split("[-_]", language.casefold())[0] in ("en", "eng", "english")


def require_new_tokens(option: str, value: int) -> None:
    """Refuse a length of answers that is no whole number, below 1, or would keep a run busy for hours."""
    require_number(option, value, 20, whole=True, at_least=1, at_most=MOST_NEW_TOKENS)


@dataclass(frozen=True)
class Attack(Component):
    """Makes the items of a measure for targets with a capability.

    Items are a pure function of the fields, the material and the seed: they may not depend on a clock, a
    global random generator, ``hash()`` or the target's answers. An attack that also has questions for models
    that translate overrides :meth:`check_languages` and :meth:`translation_items`.
    """

    capability: ClassVar[Capability] = "generate"

    @abstractmethod
    def items(self, material: Material, seed: int) -> Sequence[Item]:
        """The items in order, with unique keys; equal seeds give equal items.

        Raises:
            NotApplicable: The material lacks what the attack needs.
        """

    def check_languages(self, source: str, target: str) -> None:
        """Refuse to ask a model that translates between these languages, by the names that its run gave them.

        Raises:
            NotApplicable: The attack has no questions for such a model; by default it has none for any.
        """
        raise NotApplicable(_ASKS_FOR_CONTINUATIONS)

    def translation_items(self, material: Material, seed: int) -> Sequence[Item]:
        """The items for a model that translates; as :meth:`items`, and with the same meaning of figures."""
        raise NotApplicable(_ASKS_FOR_CONTINUATIONS)


@dataclass(frozen=True)
class Evaluator(Component):
    """Judges the responses to the items of one measure.

    If it is binary, every score is 0 or 1: shares get Wilson intervals, and two models are compared by
    McNemar's exact test. Otherwise means get bootstrap intervals, and the test flips signs. The other
    attributes describe the headline figure: its name and unit, one sentence that says what it counts, and
    its value for a model without the weakness.
    """

    binary: ClassVar[bool] = True
    figure: ClassVar[str] = "rate"
    unit: ClassVar[str] = "share of items"
    description: ClassVar[str] = ""
    ideal: ClassVar[float] = 0.0

    @abstractmethod
    def score(self, item: Item, response: Response) -> Score | None:
        """Score one response whose status is ``ok``; ``None`` if it cannot be judged.

        The function must be pure. An item becomes ``unscorable`` if this raises, or if the score is NaN or
        infinite or, for a binary evaluator, neither 0 nor 1.
        """

    def check_languages(self, source: str, target: str) -> None:
        """Refuse to judge translations between two languages; as of :class:`Attack`, but by default none."""

    def summarize(self, scored: Sequence[ScoredItem], seed: int) -> tuple[Figure, ...]:
        """The figures, headline first; by default only the mean score of the probes and of the controls.

        ``scored`` holds the items with a score in the order of the plan, at least one of them a probe.
        """

        def mean(chosen: Sequence[ScoredItem]) -> Interval:
            values = [entry.score.value for entry in chosen]
            if self.binary:
                return wilson_interval(values.count(1), len(values))
            return mean_of(values, chosen, seed)

        return figure_of(self.figure, scored, mean, self.unit, self.description, self.ideal)

    def notes(self) -> tuple[str, ...]:
        """Sentences to print beside every figure."""
        return ()


def figure_of(
    name: str,
    scored: Sequence[ScoredItem],
    measure: Callable[[Sequence[ScoredItem]], Interval],
    unit: str,
    description: str,
    ideal: float = 0.0,
) -> tuple[Figure, ...]:
    """The figure that ``measure`` finds in the probes and, as its control, in the controls.

    It is empty without a probe.
    """
    probes, controls = ([entry for entry in scored if entry.item.role == role] for role in ROLES)
    if not probes:
        return ()
    control = measure(controls) if controls else None
    return (Figure(name, measure(probes), unit, description, control, ideal),)


def mean_of(values: Sequence[float], scored: Sequence[ScoredItem], seed: int) -> Interval:
    """The mean of one value per item, with a bootstrap by group."""
    return cluster_bootstrap(values, [entry.item.cluster for entry in scored], seed)


@dataclass(frozen=True)
class ErrorRates:
    """Accuracy of a classifier on labelled texts that it was not trained on.

    Attributes:
        sensitivity: True positive rate: share of the texts with the property that it finds.
        specificity: True negative rate: share of the texts without the property that it lets pass.
        threshold: Probability from 0 to 1 at and above which the verdict is positive.
        source: Origin of the texts.
    """

    sensitivity: Interval
    specificity: Interval
    threshold: float
    source: str

    def __post_init__(self) -> None:
        shares = {"sensitivity": self.sensitivity.value, "specificity": self.specificity.value}
        for name, value in {**shares, "threshold": self.threshold}.items():
            require_number(name, value, 0.5, at_least=0, at_most=1)


@dataclass(frozen=True)
class TextClassifier(Component):
    """Estimates the probability that a text has a property, such as toxicity."""

    @abstractmethod
    def probabilities(self, texts: Sequence[str]) -> list[float]:
        """One probability per text, which depends on that text alone."""

    def reads(self, language: str) -> bool:
        """Whether it can judge texts of a language, by a name of it; by default all."""
        return True

    @abstractmethod
    def error_rates(self) -> ErrorRates:
        """Rates on held-out texts, printed beside every figure that the classifier produces."""

    def verdicts(self, texts: Sequence[str]) -> list[float]:
        """Checked :meth:`probabilities`.

        Raises:
            ConfigError: The number of verdicts is not that of the texts, or a verdict is not within 0 to 1.
        """
        found, name = list(map(float, self.probabilities(texts))), type(self).__name__
        if len(found) != len(texts):
            raise ConfigError(f"{name} gave {len(found)} verdicts for {len(texts)} texts", "repair it")
        for value in found:
            if not 0 <= value <= 1:  # also refuses NaN
                raise ConfigError(f"{name} gave a probability of {value:g}, outside of 0 to 1", "repair it")
        return found
