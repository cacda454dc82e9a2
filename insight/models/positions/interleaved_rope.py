"""Rotary positions in the paper's own layout, as in GPT-J and Cohere: neighbouring channels are a pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.models.positions.base import PositionEncoding
from insight.models.positions.rope import Rope, RotaryEncoding


@dataclass(frozen=True)
class InterleavedRope(Rope):
    """Rotation of channel pairs (2i, 2i + 1) by position / base^(2i/size).

    The same family of networks as :class:`Rope` with channels in another order, so it matters only for
    weights that were trained with it.

    Args:
        base: Wavelengths run from 2π to 2π · base tokens.
        rotated_share: Share of a head's channels that rotate, from the first on.
        scaling: Change of the wavelengths for texts longer than those trained on; null for none.
    """

    def build(self, head_dim: int, num_heads: int = 1) -> PositionEncoding:
        return InterleavedEncoding(self._size(head_dim), self.base, self.scaling)


def neighbours(channels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Pairs (2i, 2i + 1)."""
    return channels[..., 0::2], channels[..., 1::2]


class InterleavedEncoding(RotaryEncoding):
    """The built form of :class:`InterleavedRope`."""

    pairs = staticmethod(neighbours)

    def join(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return torch.stack([first, second], dim=-1).flatten(-2)
