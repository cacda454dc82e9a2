"""When to stop training: criteria over the history of validations, pure functions with their evidence.

They compose with :class:`AnyOf` and :class:`AllOf`; the callback ``EarlyStopping`` asks them.
"""

from insight.training.stopping.base import (
    Advice,
    AllOf,
    AnyOf,
    Criterion,
    EvidenceLine,
    History,
    Validation,
    single_advice,
)
from insight.training.stopping.criteria import (
    Divergence,
    DurationBudget,
    GrowingGap,
    Patience,
    Plateau,
    TargetReached,
    TokenBudget,
)
from insight.training.stopping.extrapolation import ExpectedGain

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
    "Advice",
    "single_advice",
]
