"""What every optimizer configuration shares."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import nn

from insight.runtime.component import Component


@dataclass(frozen=True)
class OptimizerConfig(Component):
    """What updates the weights, and how fast."""

    @abstractmethod
    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """One optimizer over all parameters; each group holds its full rate as ``initial_lr``."""
