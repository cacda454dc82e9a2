"""How a network learns: LightningModules, losses, optimizers, schedules and exact metrics."""

from insight.training.language_modeling import LanguageModelingModule
from insight.training.optimizers import MuonAdamW, OptimizerConfig
from insight.training.schedules import Constant, ScheduleConfig, WarmupCosine, WarmupStableDecay

__all__ = [
    "Constant",
    "LanguageModelingModule",
    "MuonAdamW",
    "OptimizerConfig",
    "ScheduleConfig",
    "WarmupCosine",
    "WarmupStableDecay",
]
