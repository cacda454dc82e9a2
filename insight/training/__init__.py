"""How a network learns: LightningModules, losses, optimizers, schedules and exact metrics."""

from insight.training.language_modeling import LanguageModelingModule
from insight.training.losses import linear_cross_entropy, token_losses
from insight.training.metrics import TextLikelihood
from insight.training.optimizers import AdamW, MuonAdamW, OptimizerConfig
from insight.training.schedules import Constant, ScheduleConfig, WarmupCosine, WarmupStableDecay

__all__ = [
    "AdamW",
    "Constant",
    "LanguageModelingModule",
    "MuonAdamW",
    "OptimizerConfig",
    "ScheduleConfig",
    "TextLikelihood",
    "WarmupCosine",
    "WarmupStableDecay",
    "linear_cross_entropy",
    "token_losses",
]
