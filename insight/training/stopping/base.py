"""The history of validations, the advice of a criterion, and combinations of criteria."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class Validation:
    """The result of one validation; smaller values are better.

    Args:
        step: Number of optimizer steps before it.
        num_tokens: Number of training tokens before it.
        value: Value of the monitored metric.
        training_value: Value of the metric on the training text since the last validation, if it was logged.
        seconds: Duration of the run so far, validations included, without the time between an interruption
            and resuming.
    """

    step: int
    num_tokens: int
    value: float
    training_value: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class History:
    """All validations so far, and the planned length of the run.

    Args:
        validations: The validations, the oldest first.
        num_planned_steps: Number of optimizer steps of the whole run, if it is known.
    """

    validations: tuple[Validation, ...]
    num_planned_steps: int | None = None

    @property
    def newest(self) -> Validation:
        """The last validation."""
        return self.validations[-1]


@dataclass(frozen=True)
class EvidenceLine:
    """A line that supports an advice, to be drawn beside the validations.

    Args:
        label: Name of the line.
        steps: Steps of its points; the last may lie beyond the newest validation.
        values: Value of the metric at each step.
        low: Lower ends of the interval around the line; empty without an interval.
        high: Upper ends of the interval.
    """

    label: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Advice:
    """The advice of a criterion, and the evidence for it.

    Args:
        stop: Whether training should end.
        evidence: One sentence with the numbers.
        figures: The numbers, for logs and plots.
        lines: Lines that the report draws beside the validations.
        parts: The advice of each criterion, if several were combined.
    """

    stop: bool
    evidence: str
    figures: dict[str, float] = field(default_factory=dict)
    lines: tuple[EvidenceLine, ...] = ()
    parts: tuple[Advice, ...] = ()


@dataclass(frozen=True)
class Criterion(Component):
    """A reason to stop. It is stateless: equal histories give equal advice, also after resuming."""

    @abstractmethod
    def judge(self, history: History) -> Advice:
        """Give the advice for ``history``, which is never empty."""


@dataclass(frozen=True)
class _Several(Criterion):
    """The base of combined criteria."""

    criteria: tuple[Criterion, ...] = ()

    def __post_init__(self) -> None:
        if not self.criteria:
            raise ConfigError(
                "there is nothing to judge by", "name at least one criterion", option="criteria", value=[]
            )


@dataclass(frozen=True)
class AnyOf(_Several):
    """Training ends when any of the criteria says so.

    Args:
        criteria: The criteria, which are asked in this order.
    """

    def judge(self, history: History) -> Advice:
        answers = [criterion.judge(history) for criterion in self.criteria]
        return _joined(any(advice.stop for advice in answers), answers)


@dataclass(frozen=True)
class AllOf(_Several):
    """Training ends when all of the criteria say so.

    Args:
        criteria: The criteria, which are asked in this order.
    """

    def judge(self, history: History) -> Advice:
        answers = [criterion.judge(history) for criterion in self.criteria]
        return _joined(all(advice.stop for advice in answers), answers)


def single_advice(criterion: Criterion, advice: Advice) -> list[tuple[Criterion, Advice]]:
    """The parts of the ``advice`` of a possibly combined criterion, each with its own criterion."""
    if not isinstance(criterion, _Several):
        return [(criterion, advice)]
    pairs = zip(criterion.criteria, advice.parts, strict=True)
    return [single for part, answer in pairs for single in single_advice(part, answer)]


def _joined(stop: bool, answers: list[Advice]) -> Advice:
    # The evidence for stopping is only that of criteria that advise to stop.
    reasons = [advice for advice in answers if advice.stop or not stop]
    return Advice(
        stop,
        "; ".join(advice.evidence for advice in reasons),
        {name: value for advice in answers for name, value in advice.figures.items()},
        parts=tuple(answers),
    )
