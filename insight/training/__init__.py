"""How a network learns: LightningModules, losses, optimizers, schedules and exact metrics."""

from insight.training.guards import Guard, SpikeDetector
from insight.training.language_modeling import LanguageModelingModule
from insight.training.losses import linear_cross_entropy, token_losses
from insight.training.metrics import TextLikelihood
from insight.training.optimizers import AdamW, AnyOptimizer, MuonAdamW, OptimizerConfig
from insight.training.schedules import (
    Constant,
    InverseSquareRoot,
    OneCycle,
    ScheduleConfig,
    WarmupCosine,
    WarmupLinear,
    WarmupStableDecay,
)
from insight.training.stopping import (
    AllOf,
    AnyOf,
    Criterion,
    Divergence,
    DurationBudget,
    ExpectedGain,
    GrowingGap,
    Patience,
    Plateau,
    TargetReached,
    TokenBudget,
)

__all__ = [
    "AdamW",
    "AllOf",
    "AnyOf",
    "AnyOptimizer",
    "Constant",
    "Criterion",
    "Divergence",
    "DurationBudget",
    "ExpectedGain",
    "GrowingGap",
    "Guard",
    "InverseSquareRoot",
    "LanguageModelingModule",
    "MuonAdamW",
    "OneCycle",
    "OptimizerConfig",
    "Patience",
    "Plateau",
    "ScheduleConfig",
    "SpikeDetector",
    "TargetReached",
    "TextLikelihood",
    "TokenBudget",
    "WarmupCosine",
    "WarmupLinear",
    "WarmupStableDecay",
    "linear_cross_entropy",
    "token_losses",
]
