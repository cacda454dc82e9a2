"""No position encoding: causal attention alone tells the order (Kazemnejad et al. 2023, arXiv 2305.19466)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.models.positions.base import Position, PositionEncoding, PositionTables


@dataclass(frozen=True)
class NoPosition(Position):
    """Queries and keys stay as they are."""

    def build(self, head_dim: int) -> PositionEncoding:
        return _NoEncoding()


class _NoEncoding(PositionEncoding):
    def tables(self, positions: torch.Tensor) -> PositionTables:
        return ()

    def apply_to_heads(self, heads: torch.Tensor, tables: PositionTables) -> torch.Tensor:
        return heads
