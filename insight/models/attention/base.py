"""What a block expects of its token mixer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from insight.models.caches import LayerCache
from insight.models.masks import Mask
from insight.models.positions import Position, PositionEncoding
from insight.models.positions.base import PositionTables
from insight.runtime.component import Component


class AttentionModule(nn.Module):
    """The built form of an :class:`Attention`."""

    position: PositionEncoding

    def forward(
        self, hidden: torch.Tensor, *, mask: Mask, tables: PositionTables, cache: LayerCache | None = None
    ) -> torch.Tensor:
        """Mix tokens.

        Args:
            hidden: ``(batch, sequence, hidden_size)``.
            mask: Which keys each query sees.
            tables: What ``self.position.tables`` returned for the positions of ``hidden``.
            cache: Keys and values of earlier tokens; those of ``hidden`` are appended.

        Returns:
            ``(batch, sequence, hidden_size)``.
        """
        raise NotImplementedError

    def make_cache(
        self,
        batch_size: int,
        max_length: int,
        dtype: torch.dtype,
        device: torch.device,
        max_rollback: int = 0,
    ) -> LayerCache:
        """An empty cache for this layer; arguments as in :meth:`Decoder.make_cache`.

        Raises:
            ConfigError: The position encoding allows no cache of that length.
        """
        raise NotImplementedError

    def flops_per_token(self, sequence_length: int) -> int:
        """Matrix-product FLOPs of one token forward, beyond those of the projections."""
        raise NotImplementedError


@dataclass(frozen=True)
class Attention(Component):
    """A way to mix tokens: projections, positions, mask and kernel."""

    @abstractmethod
    def build(
        self,
        hidden_size: int,
        build_position: Callable[[Position, int, int], PositionEncoding],
        layer: int = 0,
    ) -> AttentionModule:
        """The module for one layer.

        Args:
            hidden_size: Size of the residual stream.
            build_position: ``(position, head_dim, num_heads) -> encoding``, shared between layers.
            layer: Number of the layer, from 0.

        Raises:
            ConfigError: The numbers do not fit together.
        """

    @abstractmethod
    def check(self, hidden_size: int) -> None:
        """Refuse what :meth:`build` could not build, without building it.

        Raises:
            ConfigError: The numbers do not fit together.
        """
