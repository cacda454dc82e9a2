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
        reasons = [verdict for verdict in verdicts if verdict.stop]
        return _joined(bool(reasons), reasons or verdicts)


@dataclass(frozen=True)
class AllOf(_Several):
    """Every reason must hold.

    Args:
        criteria: What is asked, in this order.
    """

    def judge(self, history: History) -> Verdict:
        verdicts = [criterion.judge(history) for criterion in self.criteria]
        return _joined(all(verdict.stop for verdict in verdicts), verdicts)


def _joined(stop: bool, verdicts: list[Verdict]) -> Verdict:
    figures = {name: value for verdict in verdicts for name, value in verdict.figures.items()}
    return Verdict(stop, "; ".join(verdict.evidence for verdict in verdicts), figures)
