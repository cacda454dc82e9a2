"""What every optimizer configuration shares."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import nn

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class OptimizerConfig(Component):
    """What updates the weights, and how fast."""

    @abstractmethod
    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """One optimizer over all parameters; each group holds its full rate as ``initial_lr``."""

    def numbers_kept(self, role: str) -> int:
        """How many numbers it keeps for each number of a parameter of ``role`` (Adam: two means)."""
        return 2


def check_rate(name: str, value: float | None) -> None:
    """Refuse a learning rate that is not a positive number.

    Raises:
        ConfigError: It is zero, negative or not finite.
    """
    if value is not None and not 0 < value < float("inf"):
        raise ConfigError(f"{name}={value}: must be above 0", "use for example 0.003")


def check_share(name: str, value: float) -> None:
    """Refuse a decay rate of a running mean outside [0, 1).

    Raises:
        ConfigError: It lies outside.
    """
    if not 0 <= value < 1:
        raise ConfigError(f"{name}={value}: must be at least 0 and below 1", "use for example 0.95")


def check_decay(value: float) -> None:
    """Refuse a negative weight decay.

    Raises:
        ConfigError: It is negative.
    """
    if value < 0:
        raise ConfigError(f"weight_decay={value}: must be at least 0", "use 0.1, or 0 for none")
