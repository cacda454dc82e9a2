"""The history that a criterion sees, and the advice that it gives, alone or several together."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class Validation:
    """The outcome of one validation; smaller values are better.

    Args:
        step: Number of optimizer steps before it.
        num_tokens: Number of training tokens before it.
        value: The metric that is watched.
        training_value: Value of the metric on the training text since the last validation, if it was logged.
        seconds: Time that the run had taken by then, validations included; the time between an interruption
            and the resumed run does not count.
    """

    step: int
    num_tokens: int
    value: float
    training_value: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class History:
    """All validations so far, the oldest first, and how far the run is meant to go.

    Args:
        validations: The validations in their order.
        num_planned_steps: Number of optimizer steps of the whole run, if it is known.
    """

    validations: tuple[Validation, ...]
    num_planned_steps: int | None = None

    @property
    def newest(self) -> Validation:
        """The validation that has just ended."""
        return self.validations[-1]


@dataclass(frozen=True)
class EvidenceLine:
    """A line that an advice rests on, to be drawn beside the validations.

    Args:
        label: Name of the line.
        steps: Steps of its points; the last may lie beyond the newest validation.
        values: The metric at each of them.
        low: Lower ends of the interval around the line; empty if it has none.
        high: Upper ends of the interval.
    """

    label: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Advice:
    """The answer of a criterion, and the evidence for it.

    Args:
        stop: Whether training should end.
        evidence: One sentence with the numbers.
        figures: The numbers, for logs and plots.
        lines: Lines that the report draws beside the validations.
        parts: The advice of each criterion, if several were asked.
    """

    stop: bool
    evidence: str
    figures: dict[str, float] = field(default_factory=dict)
    lines: tuple[EvidenceLine, ...] = ()
    parts: tuple[Advice, ...] = ()


@dataclass(frozen=True)
class Criterion(Component):
    """A reason to stop. Stateless: the same history gives the same advice, also after resuming."""

    @abstractmethod
    def judge(self, history: History) -> Advice:
        """Judge ``history``, which is never empty."""


@dataclass(frozen=True)
class _Several(Criterion):
    """Criteria that are asked in their order."""

    criteria: tuple[Criterion, ...] = ()

    def __post_init__(self) -> None:
        if not self.criteria:
            raise ConfigError(
                "there is nothing to judge by", "name at least one criterion", option="criteria", value=[]
            )


@dataclass(frozen=True)
class AnyOf(_Several):
    """One reason is enough.

    Args:
        criteria: The criteria, which are asked in this order.
    """

    def judge(self, history: History) -> Advice:
        answers = [criterion.judge(history) for criterion in self.criteria]
        return _joined(any(advice.stop for advice in answers), answers)


@dataclass(frozen=True)
class AllOf(_Several):
    """Every reason must hold.

    Args:
        criteria: The criteria, which are asked in this order.
    """

    def judge(self, history: History) -> Advice:
        answers = [criterion.judge(history) for criterion in self.criteria]
        return _joined(all(advice.stop for advice in answers), answers)


def single_advice(criterion: Criterion, advice: Advice) -> list[tuple[Criterion, Advice]]:
    """The single pieces of advice that ``advice`` is made of, each beside the criterion that gave it.

    Args:
        criterion: The criterion that was asked.
        advice: The advice that it gave.
    """
    if not isinstance(criterion, _Several):
        return [(criterion, advice)]
    pairs = zip(criterion.criteria, advice.parts, strict=True)
    return [single for part, answer in pairs for single in single_advice(part, answer)]


def _joined(stop: bool, answers: list[Advice]) -> Advice:
    # Those that want to go on are no reason for stopping.
    reasons = [advice for advice in answers if advice.stop or not stop]
    return Advice(
        stop,
        "; ".join(advice.evidence for advice in reasons),
        {name: value for advice in answers for name, value in advice.figures.items()},
        parts=tuple(answers),
    )
