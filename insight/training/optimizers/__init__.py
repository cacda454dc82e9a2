"""Optimizers as components: each builds one torch optimizer with groups by role."""

from insight.training.optimizers.adamw import AdamW
from insight.training.optimizers.base import OptimizerConfig
from insight.training.optimizers.muon_adamw import MuonAdamW

__all__ = ["AdamW", "MuonAdamW", "OptimizerConfig"]
