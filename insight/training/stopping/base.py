"""What a criterion sees and what it answers, alone or several together."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class Validation:
    """What one validation found; smaller values are better.

    Args:
        step: Optimizer steps before it.
        num_tokens: Training tokens before it.
        value: The metric that is watched.
        training_value: The same metric on the training text since the last validation, if it was logged.
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
        validations: In their order.
        num_planned_steps: Optimizer steps of the whole run, if they are known.
    """

    validations: tuple[Validation, ...]
    num_planned_steps: int | None = None

    @property
    def newest(self) -> Validation:
        """The validation that has just ended."""
        return self.validations[-1]


@dataclass(frozen=True)
class EvidenceLine:
    """A line that an answer rests on, to be drawn beside the validations.

    Args:
        label: What it is.
        steps: Where its points lie; the last may lie beyond the newest validation.
        values: The metric at each of them.
        low: Lower ends of the interval around it; empty if it has none.
        high: Upper ends.
    """

    label: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """An answer and what it rests on.

    Args:
        stop: Whether training should end.
        evidence: One sentence with the numbers.
        figures: The numbers, for logs and plots.
        lines: What the report draws beside the validations.
        parts: The answers of its criteria, if several were asked.
    """

    stop: bool
    evidence: str
    figures: dict[str, float] = field(default_factory=dict)
    lines: tuple[EvidenceLine, ...] = ()
    parts: tuple[Verdict, ...] = ()


@dataclass(frozen=True)
class Criterion(Component):
    """A reason to stop. Stateless: the same history gives the same verdict, also after resuming."""

    @abstractmethod
    def judge(self, history: History) -> Verdict:
        """What ``history``, which is never empty, says."""


@dataclass(frozen=True)
class _Several(Criterion):
    """Criteria that are asked in their order."""

    criteria: tuple[Criterion, ...] = ()

    def __post_init__(self) -> None:
        if not self.criteria:
            raise ConfigError("criteria=(): there is nothing to judge by", "name at least one criterion")


@dataclass(frozen=True)
class AnyOf(_Several):
    """One reason is enough.

    Args:
        criteria: What is asked, in this order.
    """

    def judge(self, history: History) -> Verdict:
        verdicts = [criterion.judge(history) for criterion in self.criteria]
        return _joined(any(verdict.stop for verdict in verdicts), verdicts)


@dataclass(frozen=True)
class AllOf(_Several):
    """Every reason must hold.

    Args:
        criteria: What is asked, in this order.
    """

    def judge(self, history: History) -> Verdict:
        verdicts = [criterion.judge(history) for criterion in self.criteria]
        return _joined(all(verdict.stop for verdict in verdicts), verdicts)


def single_verdicts(criterion: Criterion, verdict: Verdict) -> list[tuple[Criterion, Verdict]]:
    """The answers that ``verdict`` is made of, each beside the criterion that gave it.

    Args:
        criterion: The one that was asked.
        verdict: Its answer.
    """
    if not isinstance(criterion, _Several):
        return [(criterion, verdict)]
    pairs = zip(criterion.criteria, verdict.parts, strict=True)
    return [single for part, answer in pairs for single in single_verdicts(part, answer)]


def _joined(stop: bool, verdicts: list[Verdict]) -> Verdict:
    # Those that want to go on are no reason for stopping.
    reasons = [verdict for verdict in verdicts if verdict.stop or not stop]
    return Verdict(
        stop,
        "; ".join(verdict.evidence for verdict in reasons),
        {name: value for verdict in verdicts for name, value in verdict.figures.items()},
        parts=tuple(verdicts),
    )
