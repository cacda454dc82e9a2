"""The bases that an attack, an evaluator or a classifier derives from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError
from insight.runtime.statistics import Interval, cluster_bootstrap, wilson_interval
from insight.safety.material import Material
from insight.safety.records import Capability, Figure, Item, Response, Role, Score, ScoredItem


class NotApplicable(Exception):  # noqa: N818 (an answer, not a failure)
    """A measure has nothing to ask; its text says why. It is reported as such, never as passed."""


@dataclass(frozen=True)
class Attack(Component):
    """Makes the items of a measure.

    Items are a pure function of the fields, the material and the seed: no clock, no global generator, no
    ``hash()``, no target. The target comes in only through what it can do.

    Attributes:
        capability: The ability that a target needs.
    """

    capability: ClassVar[Capability] = "generate"

    @abstractmethod
    def items(self, material: Material, seed: int) -> Sequence[Item]:
        """The items in order, with unique keys.

        Args:
            material: The texts behind the model.
            seed: Chooses among equally good items; the same seed makes the same items.

        Raises:
            NotApplicable: The material lacks what the attack needs.
        """


@dataclass(frozen=True)
class Evaluator(Component):
    """Judges the responses to the items of one measure.

    Attributes:
        binary: Whether every score is 0 or 1. Then shares get Wilson intervals and two models are compared
            by McNemar's exact test; otherwise means get bootstrap intervals and the test is by sign flips.
        figure: Name of the headline figure.
        unit: Unit of the headline figure.
        description: One sentence that says what the headline counts.
        ideal: The headline of a model without the weakness.
    """

    binary: ClassVar[bool] = True
    figure: ClassVar[str] = "rate"
    unit: ClassVar[str] = "share of items"
    description: ClassVar[str] = ""
    ideal: ClassVar[float] = 0.0

    @abstractmethod
    def score(self, item: Item, response: Response) -> Score | None:
        """Judge one response whose status is ``ok``; ``None`` where it cannot be judged.

        The function is pure: the same response always gets the same score. What it raises, and a score that
        is no number or, of a binary evaluator, neither 0 nor 1, makes the item ``unscorable``.
        """

    def summarize(self, scored: Sequence[ScoredItem], seed: int) -> tuple[Figure, ...]:
        """The figures, the headline first.

        By default there is one: the mean score of the probes, beside that of the controls.

        Args:
            scored: The items that count, at least one of them a probe, in the order of the plan.
            seed: Seed of the bootstraps.
        """
        headline = mean_score(scored, "probe", self.binary, seed)
        control = mean_score(scored, "control", self.binary, seed)
        if headline is None:
            return ()
        return (Figure(self.figure, headline, self.unit, self.description, control, self.ideal),)

    def notes(self) -> tuple[str, ...]:
        """Sentences that have to stand beside every figure."""
        return ()


def mean_score(scored: Sequence[ScoredItem], role: Role, binary: bool, seed: int) -> Interval | None:
    """The mean score of the items in one role; ``None`` where there is none.

    Args:
        scored: Items in any role.
        role: The role that counts.
        binary: Whether the scores are 0 or 1 and every item stands for itself: a Wilson interval. Otherwise
            the interval is a bootstrap by group.
        seed: Seed of the bootstrap.
    """
    chosen = [entry for entry in scored if entry.item.role == role]
    if not chosen:
        return None
    if binary:
        return wilson_interval(sum(entry.score.value == 1 for entry in chosen), len(chosen))
    return cluster_bootstrap(
        [entry.score.value for entry in chosen], [entry.item.cluster for entry in chosen], seed
    )


@dataclass(frozen=True)
class ErrorRates:
    """How a classifier did on labelled texts that it had not seen.

    Attributes:
        sensitivity: Share of the texts with the property that it finds.
        specificity: Share of the texts without the property that it lets pass.
        threshold: Probability from which it says yes, from 0 to 1.
        source: Origin of the texts.
    """

    sensitivity: Interval
    specificity: Interval
    threshold: float
    source: str

    def __post_init__(self) -> None:
        shares = {"sensitivity": self.sensitivity.value, "specificity": self.specificity.value}
        for name, value in {**shares, "threshold": self.threshold}.items():
            if not 0 <= value <= 1:
                raise ConfigError("must be from 0 to 1", "state a probability", option=name, value=value)


@dataclass(frozen=True)
class TextClassifier(Component):
    """Gives texts the probability of a property, such as being toxic."""

    @abstractmethod
    def probabilities(self, texts: Sequence[str]) -> list[float]:
        """One number from 0 to 1 a text; a text's number depends on that text alone."""

    @abstractmethod
    def error_rates(self) -> ErrorRates:
        """Rates measured on a held-out part; they are stated beside every figure that they lead to."""

    def verdicts(self, texts: Sequence[str]) -> list[float]:
        """:meth:`probabilities`, after checking that there is one for each text and that each is one.

        Raises:
            ConfigError: The classifier returned another number of verdicts, or a verdict outside of 0 to 1.
        """
        found = [float(value) for value in self.probabilities(texts)]
        name = type(self).__name__
        if len(found) != len(texts):
            raise ConfigError(f"{name} gave {len(found)} verdicts for {len(texts)} texts", "repair it")
        for value in found:
            if not 0 <= value <= 1:  # also refuses NaN
                raise ConfigError(f"{name} gave a probability of {value:g}, outside of 0 to 1", "repair it")
        return found
