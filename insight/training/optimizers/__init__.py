"""Optimizers as components."""

from insight.training.optimizers.base import OptimizerConfig
from insight.training.optimizers.muon_adamw import MuonAdamW

__all__ = ["MuonAdamW", "OptimizerConfig"]
