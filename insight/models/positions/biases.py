"""Positions as biases of the scores: linear in the distance (ALiBi), or learned by distance (T5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from insight.models.checks import LARGEST_COUNT, require, require_flags, require_number, require_positive
from insight.models.positions.base import Position, PositionEncoding, PositionTables


@dataclass(frozen=True)
class Alibi(Position):
    """The score of a key falls with its distance, with a separate slope for each head.

    Press et al. 2021, arXiv 2108.12409. Nothing is learned. If the number of heads is not a power of two,
    slopes follow the authors' code: those of the power below, then every other one of the power above.

    Args:
        factor: Factor of all slopes (Falcon: ``head_dim ** -0.5``).
        bidirectional: Whether the scores of later keys fall with their distance too, as encoders and
            cross-attention need (the symmetric form that the authors propose for encoders).
    """

    factor: float = 1.0
    bidirectional: bool = False

    def __post_init__(self) -> None:
        require_flags(self)
        require_number(0, 1e6, "use 1 for the slopes of the paper", factor=self.factor)

    def build(self, head_dim: int, num_heads: int = 1) -> PositionEncoding:
        encoding = SymmetricAlibiEncoding if self.bidirectional else AlibiEncoding
        return encoding(num_heads, self.factor)

    @property
    def looks_ahead(self) -> bool:
        return self.bidirectional


def alibi_slopes(num_heads: int) -> list[float]:
    """The slope of each head: 2^(-8/n), 2^(-16/n), … for a power of two n."""
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2.0 ** (-8 * (head + 1) / power) for head in range(power)]
    between = [2.0 ** (-4 * (2 * head + 1) / power) for head in range(num_heads - power)]
    return slopes + between


class AlibiEncoding(PositionEncoding):
    """The built form of a causal :class:`Alibi`: three more channels, so that any kernel can use the bias.

    With k = 256a + b the bias slope · (k - q) is the product of (256 slope, slope, -slope · q) and (a, b, 1).
    Numbers up to 256 are exact in bfloat16, and the last channel is rounded equally for all keys of a query,
    so softmax cancels the error. The channels come first, so that partial sums stay small for near keys. In
    float32 the error of the scores is at most 1e-7 · slope · position.
    """

    extra_channels = 3

    def __init__(self, num_heads: int, factor: float = 1.0) -> None:
        super().__init__()
        self.slopes = [factor * slope for slope in alibi_slopes(num_heads)]

    def tables(self, positions: Tensor) -> PositionTables:
        """Make float64 tables: queries ``(..., sequence, num_heads, 3)``, keys ``(..., sequence, 1, 3)``."""
        where = positions.double()
        slopes = torch.tensor(self.slopes, dtype=torch.float64, device=positions.device)
        last = -slopes * where.unsqueeze(-1)
        steep = slopes.expand_as(last)
        queries = torch.stack([256 * steep, steep, last], dim=-1)
        high = where.div(256, rounding_mode="floor")
        keys = torch.stack([high, where - 256 * high, torch.ones_like(where)], dim=-1)
        return queries, keys.unsqueeze(-2)

    def encode_queries(self, heads: Tensor, tables: PositionTables, scale: float) -> Tensor:
        return _prepend((tables[0] / scale).to(heads.dtype), heads)

    def encode_keys(self, heads: Tensor, tables: PositionTables) -> Tensor:
        return _prepend(tables[1].to(heads.dtype), heads)


class SymmetricAlibiEncoding(PositionEncoding):
    """The built form of a bidirectional :class:`Alibi`; no product of channels gives an absolute value."""

    has_bias = True

    def __init__(self, num_heads: int, factor: float = 1.0) -> None:
        super().__init__()
        self.slopes = [factor * slope for slope in alibi_slopes(num_heads)]

    def bias(self, distances: Tensor) -> Tensor:
        slopes = torch.tensor(self.slopes, device=distances.device)
        return -slopes[:, None, None] * distances.abs().unsqueeze(1)


def _prepend(channels: Tensor, heads: Tensor) -> Tensor:
    return torch.cat([channels.expand(*heads.shape[:-1], -1), heads], dim=-1)


@dataclass(frozen=True)
class RelativeBias(Position):
    """A learned bias of the score for each head and bucket of distances; all layers share the table.

    Raffel et al. 2019, arXiv 1910.10683. Half of the buckets hold one distance each, the others increasingly
    wide ranges up to ``max_distance``.

    Args:
        num_buckets: Rows of the table.
        max_distance: The distance from which on all share the last bucket.
        bidirectional: Whether keys after the query have separate buckets (in encoders).
    """

    num_buckets: int = 32
    max_distance: int = 128
    bidirectional: bool = False

    def __post_init__(self) -> None:
        require_flags(self)
        parts = 4 if self.bidirectional else 2
        require_positive(minimum=parts, maximum=LARGEST_COUNT, num_buckets=self.num_buckets)
        divisible, problem = self.num_buckets % parts == 0, f"is divided into {parts} equal parts"
        require(divisible, problem, f"use a multiple of {parts}", num_buckets=self.num_buckets)
        require_positive(minimum=self.num_buckets // parts + 1, max_distance=self.max_distance)

    def build(self, head_dim: int, num_heads: int = 1) -> PositionEncoding:
        return RelativeBiasEncoding(self, num_heads)

    @property
    def looks_ahead(self) -> bool:
        return self.bidirectional


def distance_buckets(distances: Tensor, config: RelativeBias) -> Tensor:
    """Map distances (query minus key) to rows of the table, int64, of the same shape."""
    num_buckets = config.num_buckets
    first = torch.zeros_like(distances)
    if config.bidirectional:
        num_buckets //= 2
        first = (distances < 0) * num_buckets
        distances = distances.abs()
    distances = distances.clamp_min(0)
    num_single = num_buckets // 2
    # Distance 0 has a single bucket, so its logarithm is not used; the clamp only keeps -inf from the cast.
    ratio = torch.log(distances.clamp_min(1).float() / num_single)
    ratio = ratio / math.log(config.max_distance / num_single)
    wide = num_single + (ratio * (num_buckets - num_single)).long()
    return first + torch.where(distances < num_single, distances, wide.clamp_max(num_buckets - 1))


class RelativeBiasEncoding(PositionEncoding):
    """The built form of :class:`RelativeBias`."""

    has_bias = True
    parameter_role = "vector"  # rows of single numbers are neither a matrix to orthogonalise nor tokens

    def __init__(self, config: RelativeBias, num_heads: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.zeros(config.num_buckets, num_heads))

    def reset_parameters(self) -> None:
        """Set the bias of every distance to zero."""
        nn.init.zeros_(self.weight)

    def bias(self, distances: Tensor) -> Tensor:
        return self.weight[distance_buckets(distances, self.config)].movedim(-1, 1)
