"""Several criteria as one."""

from __future__ import annotations

from dataclasses import dataclass

from insight.runtime.errors import ConfigError
from insight.training.stopping.base import Criterion, History, Verdict


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
