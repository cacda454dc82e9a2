"""Optimizer configurations; each builds one torch optimizer with parameter groups by role."""

from insight.training.optimizers.adamw import AdamW as AdamW
from insight.training.optimizers.adamw import AnyOptimizer as AnyOptimizer
from insight.training.optimizers.adamw import OptimizerFactory as OptimizerFactory
from insight.training.optimizers.adamw import as_optimizer_config as as_optimizer_config
from insight.training.optimizers.base import OptimizerConfig as OptimizerConfig
from insight.training.optimizers.base import ParameterGroup as ParameterGroup
from insight.training.optimizers.base import parameter_groups as parameter_groups
from insight.training.optimizers.base import prepare_for_resuming as prepare_for_resuming
from insight.training.optimizers.muon_adamw import MuonAdamW as MuonAdamW
