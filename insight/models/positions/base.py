"""What a position encoding offers to attention."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import nn

from insight.runtime.component import Component

PositionTables = tuple[torch.Tensor, ...]
"""What :meth:`PositionEncoding.tables` computed once for all layers of a forward pass."""


class PositionEncoding(nn.Module):
    """The built form of a :class:`Position`; layers with equal configurations share one."""

    def tables(self, positions: torch.Tensor) -> PositionTables:
        """Whatever depends on the positions only, computed once a forward pass.

        Args:
            positions: int64 ``(sequence,)`` or ``(batch, sequence)``.
        """
        raise NotImplementedError

    def apply_to_heads(self, heads: torch.Tensor, tables: PositionTables) -> torch.Tensor:
        """Encode the positions into queries or keys.

        Args:
            heads: ``(batch, sequence, heads, head_dim)``, float32 or float64.
            tables: From :meth:`tables`.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Position(Component):
    """An encoding of token positions."""

    @abstractmethod
    def build(self, head_dim: int) -> PositionEncoding:
        """The encoding for heads of this size.

        Raises:
            ConfigError: The encoding does not fit ``head_dim``.
        """
