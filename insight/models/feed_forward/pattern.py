"""Another feed-forward layer from block to block."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from insight.models.feed_forward.base import FeedForward
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class FeedForwardPattern(FeedForward):
    """The first blocks have ``first``, the others ``layers`` in turn: dense blocks below mixtures of experts.

    Args:
        layers: Feed-forward layers of the blocks that come after ``first``; the pattern repeats.
        first: Feed-forward layers of the first blocks, which do not repeat.
    """

    layers: tuple[FeedForward, ...] = ()
    first: tuple[FeedForward, ...] = ()

    def __post_init__(self) -> None:
        if not self.layers:
            raise ConfigError(
                "layers=(): a pattern has at least one feed-forward layer that repeats", "list them in turn"
            )

    def build(self, hidden_size: int, layer: int = 0) -> nn.Module:
        place = layer - len(self.first)
        chosen = self.first[layer] if place < 0 else self.layers[place % len(self.layers)]
        return chosen.build(hidden_size, layer)
