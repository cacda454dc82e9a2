"""What a normalisation offers."""

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


def require_eps(eps: float, name: str = "eps") -> None:
    """Refuse what would not keep a root away from zero, or would swamp it.

    Args:
        eps: Added before a root.
        name: Of the option.

    Raises:
        ConfigError: ``eps`` is not between 0 and 1.
    """
    if not 0 < eps < 1:
        raise ConfigError(f"{name}={eps}: {name} must lie between 0 and 1", "use 1e-6 or 1e-5")
