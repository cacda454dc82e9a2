"""When to stop training: criteria over the history of validations, pure functions with their evidence.

They compose with :class:`AnyOf` and :class:`AllOf`; the callback ``EarlyStopping`` asks them.
"""

from insight.training.stopping.base import Criterion, EvidenceLine, History, Validation, Verdict
from insight.training.stopping.combined import AllOf, AnyOf, single_verdicts
from insight.training.stopping.extrapolation import ExpectedGain
from insight.training.stopping.gap import GrowingGap
from insight.training.stopping.limits import Divergence, DurationBudget, TargetReached, TokenBudget
from insight.training.stopping.patience import Patience
from insight.training.stopping.plateau import Plateau

__all__ = [
    "AllOf",
    "AnyOf",
    "Criterion",
    "Divergence",
    "DurationBudget",
    "EvidenceLine",
    "ExpectedGain",
    "GrowingGap",
    "History",
    "Patience",
    "Plateau",
    "TargetReached",
    "TokenBudget",
    "Validation",
    "Verdict",
    "single_verdicts",
]
