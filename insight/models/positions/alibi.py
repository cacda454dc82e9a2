"""Attention with linear biases (Press et al. 2021, arXiv 2108.12409)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from insight.models.positions.base import Position, PositionEncoding, PositionTables


@dataclass(frozen=True)
class Alibi(Position):
    """The score of a key falls with its distance, by a slope of its own for every head.

    Nothing is learned. The slopes of numbers of heads that are no power of two follow the authors' code:
    those of the power below, then every other one of the power above.
    """

    def build(self, head_dim: int, num_heads: int = 1) -> PositionEncoding:
        return AlibiEncoding(num_heads)

    @property
    def looks_ahead(self) -> bool:
        return False  # the score of a later key would rise with its distance


def alibi_slopes(num_heads: int) -> list[float]:
    """The slope of each head: 2^(-8/n), 2^(-16/n), … for a power of two n."""
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2.0 ** (-8 * (head + 1) / power) for head in range(power)]
    between = [2.0 ** (-4 * (2 * head + 1) / power) for head in range(num_heads - power)]
    return slopes + between


class AlibiEncoding(PositionEncoding):
    """The built form of :class:`Alibi`: the bias as three further channels, so that any kernel takes it.

    With k = 256a + b the bias slope · (k - q) is the product of (256 slope, slope, -slope · q) and
    (a, b, 1). Numbers up to 256 are exact in bfloat16, and what rounding does to the last channel is the
    same for all keys of a query, so softmax drops it. The channels come first: partial sums then stay
    small where keys are near. In float32 the scores are off by at most 1e-7 · slope · position.

    Args:
        num_heads: Query heads.
    """

    extra_channels = 3

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.slopes = alibi_slopes(num_heads)

    def tables(self, positions: torch.Tensor) -> PositionTables:
        """For queries ``(..., sequence, num_heads, 3)`` and for keys ``(..., sequence, 1, 3)``; float64."""
        where = positions.double()
        slopes = torch.tensor(self.slopes, dtype=torch.float64, device=positions.device)
        last = -slopes * where.unsqueeze(-1)
        steep = slopes.expand_as(last)
        queries = torch.stack([256 * steep, steep, last], dim=-1)
        high = where.div(256, rounding_mode="floor")
        keys = torch.stack([high, where - 256 * high, torch.ones_like(where)], dim=-1)
        return queries, keys.unsqueeze(-2)

    def encode_queries(self, heads: torch.Tensor, tables: PositionTables, scale: float) -> torch.Tensor:
        return _prepend((tables[0] / scale).to(heads.dtype), heads)

    def encode_keys(self, heads: torch.Tensor, tables: PositionTables) -> torch.Tensor:
        return _prepend(tables[1].to(heads.dtype), heads)


def _prepend(channels: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
    return torch.cat([channels.expand(*heads.shape[:-1], -1), heads], dim=-1)
