"""Another attention from layer to layer, in a repeating pattern."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from insight.models.attention.base import Attention, AttentionModule, CrossAttentionModule
from insight.models.positions import Position, PositionEncoding
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class LayerPattern(Attention):
    """Layer i takes ``layers[i % len(layers)]``: local and global layers, every fourth without positions.

    Args:
        layers: Attention of the first layers; the pattern then repeats.
    """

    layers: tuple[Attention, ...] = ()

    def __post_init__(self) -> None:
        if not self.layers:
            raise ConfigError("layers=(): a pattern has at least one attention", "list them in turn")

    def check(self, hidden_size: int) -> None:
        for attention in self.layers:
            attention.check(hidden_size)

    @property
    def causal_only(self) -> bool:
        return any(attention.causal_only for attention in self.layers)

    def check_bidirectional(self) -> None:
        for attention in self.layers:
            attention.check_bidirectional()

    def check_cross(self, hidden_size: int) -> None:
        for attention in self.layers:
            attention.check_cross(hidden_size)

    def build(
        self,
        hidden_size: int,
        build_position: Callable[[Position, int, int], PositionEncoding],
        layer: int = 0,
    ) -> AttentionModule:
        return self.layers[layer % len(self.layers)].build(hidden_size, build_position, layer)

    def build_cross(
        self,
        hidden_size: int,
        memory_size: int,
        build_position: Callable[[Position, int, int], PositionEncoding],
        layer: int = 0,
    ) -> CrossAttentionModule:
        attention = self.layers[layer % len(self.layers)]
        return attention.build_cross(hidden_size, memory_size, build_position, layer)
