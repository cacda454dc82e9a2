"""Both branches read the same input (GPT-J 2021; Black et al. 2022, arXiv 2204.06745)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from insight.models.attention import AttentionModule, CrossAttentionModule
from insight.models.blocks.base import Block, BlockLayout, add
from insight.models.caches import CrossCache, LayerCache, Memory
from insight.models.masks import Mask
from insight.models.positions.base import PositionTables
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class ParallelResidual(BlockLayout):
    """x + attention(norm(x)) + feed_forward(norm(x)); there is no place for cross-attention.

    Args:
        shared_norm: Whether both branches read one norm (Falcon, GPT-J) or each its own (GPT-NeoX).
    """

    shared_norm: bool = False

    def build(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: Callable[[], nn.Module],
        dropout: float,
        cross_attention: CrossAttentionModule | None = None,
    ) -> Block:
        if cross_attention is not None:
            raise ConfigError("ParallelResidual has no place for cross-attention", "use PreNorm or PostNorm")
        feed_forward_norm = None if self.shared_norm else make_norm()
        return _ParallelBlock(attention, feed_forward, make_norm(), feed_forward_norm, dropout)

    @property
    def takes_memory(self) -> bool:
        return False


class _ParallelBlock(Block):
    def __init__(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        attention_norm: nn.Module,
        feed_forward_norm: nn.Module | None,
        dropout: float,
    ) -> None:
        super().__init__(attention, feed_forward, dropout)
        self.attention_norm = attention_norm
        self.feed_forward_norm = feed_forward_norm

    def forward(
        self,
        hidden: torch.Tensor,
        *,
        mask: Mask,
        tables: PositionTables,
        cache: LayerCache | None = None,
        memory: Memory | CrossCache | None = None,
    ) -> torch.Tensor:
        normed = self.attention_norm(hidden)
        mixed = self.attention(normed, mask=mask, tables=tables, cache=cache)
        if self.feed_forward_norm is not None:
            normed = self.feed_forward_norm(hidden)
        return add(add(hidden, self.drop(mixed)), self.drop(self.feed_forward(normed)))
