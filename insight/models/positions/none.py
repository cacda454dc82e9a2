"""No position encoding: causal attention alone tells the order (Kazemnejad et al. 2023, arXiv 2305.19466)."""

from __future__ import annotations

from dataclasses import dataclass

from insight.models.positions.base import Position, PositionEncoding


@dataclass(frozen=True)
class NoPosition(Position):
    """Queries and keys stay as they are."""

    def build(self, head_dim: int, num_heads: int = 1) -> PositionEncoding:
        return PositionEncoding()
