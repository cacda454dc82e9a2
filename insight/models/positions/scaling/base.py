"""What a scaling of rotary frequencies offers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class RopeScaling(Component):
    """A change of rotary wavelengths, so that texts longer than those trained on stay in known angles."""

    @abstractmethod
    def build(self, series: torch.Tensor, base: float) -> torch.Tensor:
        """The frequencies to use instead.

        Args:
            series: Angle a token of every pair, ``base^(-2i/size)``, ``(size / 2,)``.
            base: Of the series.
        """

    @property
    def amplitude(self) -> float:
        """Factor of the rotated queries and of the rotated keys."""
        return 1.0

    def at_positions(self, series: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The frequencies for the text at hand, where these depend on it.

        Args:
            series: From :meth:`build`.
            positions: int64, any shape.
        """
        return series

    def check_cache(self, max_length: int) -> None:
        """Refuse a cache in which earlier keys would go stale.

        Raises:
            ConfigError: Frequencies change before ``max_length`` tokens.
        """


def require_factor(factor: float) -> None:
    """Refuse factors that would shorten the context.

    Raises:
        ConfigError: ``factor`` is below 1.
    """
    if not 1 <= factor < 1e6:
        raise ConfigError(f"factor={factor}: the context grows by a factor of 1 or more", "use 2, 4 or 8")
