"""What a feed-forward layer offers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import nn

from insight.runtime.component import Component


@dataclass(frozen=True)
class FeedForward(Component):
    """A map of each token by itself."""

    @abstractmethod
    def build(self, hidden_size: int, layer: int = 0) -> nn.Module:
        """A module ``(..., hidden_size) -> (..., hidden_size)``.

        Args:
            hidden_size: Size of the residual stream.
            layer: Number of the layer, from 0.
        """
