"""Stops when nothing has become better for a while."""

from __future__ import annotations

from dataclasses import dataclass

from insight.runtime.errors import ConfigError
from insight.training.stopping.base import Criterion, EvidenceLine, History, Verdict


@dataclass(frozen=True)
class Patience(Criterion):
    """So many validations in a row brought no improvement.

    Args:
        num_validations: Validations without improvement before training ends.
        min_delta: Least fall that counts as an improvement.
        relative: Whether ``min_delta`` is a share of the best value so far instead of a difference.
    """

    num_validations: int = 5
    min_delta: float = 0.0
    relative: bool = False

    def __post_init__(self) -> None:
        if self.num_validations < 1:
            raise ConfigError(
                f"num_validations={self.num_validations}: patience counts validations", "use at least 1"
            )
        if not self.min_delta >= 0:
            raise ConfigError(f"min_delta={self.min_delta}: must not be negative", "use e.g. 0.001")

    def judge(self, history: History) -> Verdict:
        best, waited, best_step = float("inf"), 0, history.validations[0].step
        for validation in history.validations:
            needed = self.min_delta * abs(best) if self.relative and best != float("inf") else self.min_delta
            if validation.value < best - needed or best == float("inf"):
                best, waited, best_step = validation.value, 0, validation.step
            else:
                waited += 1
        evidence = f"no improvement on {best:.4f} in {waited} validations"
        line = EvidenceLine("best so far", (best_step, history.newest.step), (best, best))
        return Verdict(waited >= self.num_validations, evidence, {"best": best, "waited": waited}, (line,))
