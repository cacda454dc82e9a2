"""The interface of a position encoding of attention."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from insight.models.checks import require, require_number, require_positive
from insight.runtime.component import Component

PositionTables = tuple[Tensor, ...]
"""Result of :meth:`PositionEncoding.tables`, computed once for all layers of a forward pass."""


class PositionEncoding(nn.Module):
    """The built form of a :class:`Position`; layers with equal configurations share one.

    This base encodes nothing; a subclass overrides the methods that it needs.

    Attributes:
        extra_channels: Number of channels that :meth:`encode_queries` and :meth:`encode_keys` add to a head.
        has_bias: Whether :meth:`bias` is used.
        longest_cache: Most tokens whose keys can be kept; ``None`` if later tokens never change earlier keys.
    """

    extra_channels = 0
    has_bias = False
    longest_cache: int | None = None

    def tables(self, positions: Tensor) -> PositionTables:
        """Compute all that depends on ``positions`` only, int64 ``(sequence,)`` or ``(batch, sequence)``."""
        return ()

    def apply_to_heads(self, heads: Tensor, tables: PositionTables) -> Tensor:
        """Encode positions into queries or keys ``(batch, sequence, heads, head_dim)``, at least float32."""
        return heads

    def encode_queries(self, heads: Tensor, tables: PositionTables, scale: float) -> Tensor:
        """Encode positions into queries, if these differ from keys; ``scale`` is the factor of the scores."""
        return self.apply_to_heads(heads, tables)

    def encode_keys(self, heads: Tensor, tables: PositionTables) -> Tensor:
        """Encode positions into keys, where these differ from queries."""
        return self.apply_to_heads(heads, tables)

    def bias(self, distances: Tensor) -> Tensor:
        """Return the bias of the scaled scores, ``(batch or 1, num_heads, queries, keys)``.

        ``distances`` are positions of queries minus those of keys, int64 ``(batch or 1, queries, keys)``.
        """
        raise NotImplementedError

    def check_cache(self, max_length: int) -> None:
        """Refuse a cache of more tokens than :attr:`longest_cache`."""
        longest = self.longest_cache
        require(
            longest is None or max_length <= longest,
            f"earlier keys change beyond {longest} tokens, so that cached ones would go stale",
            f"use a cache of {longest} tokens, or a scaling that holds for every length (YarnScaling, "
            "LongRopeScaling with always_long=true)",
            max_length=max_length,
        )


@dataclass(frozen=True)
class Position(Component):
    """A position encoding of attention."""

    @abstractmethod
    def build(self, head_dim: int, num_heads: int = 1) -> PositionEncoding:
        """Build the encoding for ``num_heads`` query heads of ``head_dim`` channels, or refuse these."""

    @property
    def looks_ahead(self) -> bool:
        """Whether it is right for keys after the query too, as attention in both directions needs."""
        return True


@dataclass(frozen=True)
class NoPosition(Position):
    """No position encoding: only causal attention gives the order.

    Kazemnejad et al. 2023, arXiv 2305.19466.
    """

    def build(self, head_dim: int, num_heads: int = 1) -> PositionEncoding:
        return PositionEncoding()


@dataclass(frozen=True)
class QueryTemperature(Position):
    """Queries grow with their position, so that attention stays sharp in long texts (Llama 4).

    They are multiplied by 1 + growth · ln(1 + floor((position + 1) / step)); there is no other encoding.
    Nakanishi 2025, arXiv 2501.19399.

    Args:
        step: Number of tokens after which the factor grows.
        growth: Factor of the logarithm.
    """

    step: int = 8192
    growth: float = 0.1

    def __post_init__(self) -> None:
        require_positive(step=self.step)
        require_number(0, 1e3, "use 0.1", growth=self.growth)

    def build(self, head_dim: int, num_heads: int = 1) -> PositionEncoding:
        return _QueryTemperature(self.step, self.growth)


class _QueryTemperature(PositionEncoding):
    def __init__(self, step: int, growth: float) -> None:
        super().__init__()
        self.step, self.growth = step, growth

    def tables(self, positions: Tensor) -> PositionTables:
        factors = torch.log1p((positions + 1).div(self.step, rounding_mode="floor")) * self.growth + 1
        return (factors[..., None, None],)

    def encode_queries(self, heads: Tensor, tables: PositionTables, scale: float) -> Tensor:
        return heads * tables[0].to(heads.dtype)

    def encode_keys(self, heads: Tensor, tables: PositionTables) -> Tensor:
        return heads
