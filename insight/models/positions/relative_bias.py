"""Learned bias by distance (Raffel et al. 2019, arXiv 1910.10683: T5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from insight.models.positions.base import Position, PositionEncoding
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class RelativeBias(Position):
    """A learned number a head and bucket of distances is added to the score; all layers share the table.

    Half of the buckets hold one distance each, the others ever wider ranges up to ``max_distance``.

    Args:
        num_buckets: Rows of the table.
        max_distance: From here on all distances share the last bucket.
        bidirectional: Whether keys after the query have buckets of their own (in encoders).
    """

    num_buckets: int = 32
    max_distance: int = 128
    bidirectional: bool = False

    def __post_init__(self) -> None:
        parts = 4 if self.bidirectional else 2
        if self.num_buckets < parts or self.num_buckets % parts:
            raise ConfigError(
                f"num_buckets={self.num_buckets}: is divided into {parts} equal parts",
                f"use a multiple of {parts}",
            )
        if self.max_distance <= self.num_buckets // parts:
            raise ConfigError(
                f"max_distance={self.max_distance}, num_buckets={self.num_buckets}: single distances alone "
                f"reach {self.num_buckets // parts}",
                f"use a max_distance above {self.num_buckets // parts}",
            )

    def build(self, head_dim: int, num_heads: int = 1) -> PositionEncoding:
        return RelativeBiasEncoding(self, num_heads)

    @property
    def looks_ahead(self) -> bool:
        return self.bidirectional


def distance_buckets(distances: torch.Tensor, config: RelativeBias) -> torch.Tensor:
    """Distances (query minus key) to rows of the table, int64, the same shape."""
    num_buckets = config.num_buckets
    first = torch.zeros_like(distances)
    if config.bidirectional:
        num_buckets //= 2
        first = (distances < 0) * num_buckets
        distances = distances.abs()
    distances = distances.clamp_min(0)
    num_single = num_buckets // 2
    # Distance 0 is single: its logarithm, -inf, is computed and dropped; clamped, it cannot upset a cast.
    ratio = torch.log(distances.clamp_min(1).float() / num_single)
    ratio = ratio / math.log(config.max_distance / num_single)
    wide = num_single + (ratio * (num_buckets - num_single)).long()
    return first + torch.where(distances < num_single, distances, wide.clamp_max(num_buckets - 1))


class RelativeBiasEncoding(PositionEncoding):
    """The built form of :class:`RelativeBias`.

    Args:
        config: What to build.
        num_heads: Query heads.
    """

    has_bias = True
    parameter_role = "vector"  # rows of single numbers: neither a matrix to orthogonalise nor tokens

    def __init__(self, config: RelativeBias, num_heads: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.zeros(config.num_buckets, num_heads))

    def reset_parameters(self) -> None:
        """A bias of zero for every distance."""
        nn.init.zeros_(self.weight)

    def bias(self, distances: torch.Tensor) -> torch.Tensor:
        return self.weight[distance_buckets(distances, self.config)].movedim(-1, 1)
