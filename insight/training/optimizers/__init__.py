"""Optimizers as components: each builds one torch optimizer with groups by role."""

from insight.training.optimizers.adamw import AdamW
from insight.training.optimizers.any_optimizer import AnyOptimizer, OptimizerFactory, as_optimizer_config
from insight.training.optimizers.base import OptimizerConfig, prepare_for_resuming
from insight.training.optimizers.muon_adamw import MuonAdamW
from insight.training.optimizers.parameter_groups import ParameterGroup, parameter_groups

__all__ = [
    "AdamW",
    "AnyOptimizer",
    "MuonAdamW",
    "OptimizerConfig",
    "OptimizerFactory",
    "ParameterGroup",
    "as_optimizer_config",
    "parameter_groups",
    "prepare_for_resuming",
]
