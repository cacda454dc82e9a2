"""Normalisation layers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import nn

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class Norm(Component):
    """A normalisation over the last dimension."""

    @abstractmethod
    def build(self, size: int) -> nn.Module:
        """A module ``(..., size) -> (..., size)``."""


@dataclass(frozen=True)
class RMSNorm(Norm):
    """Division by the root mean square (Zhang and Sennrich 2019, arXiv 1910.07467).

    Args:
        eps: Added to the mean square before the root.
        weight: Whether each channel has a learned factor (as in Llama) or none.
    """

    eps: float = 1e-6
    weight: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.eps < 1:
            raise ConfigError(f"eps={self.eps}: eps must lie between 0 and 1", "use 1e-6 or 1e-5")

    def build(self, size: int) -> nn.Module:
        return nn.RMSNorm(size, eps=self.eps, elementwise_affine=self.weight)
