"""A norm after each branch, inside the residual (OLMo 2, arXiv 2501.00656)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from insight.models.attention import AttentionModule
from insight.models.blocks.base import Block, BlockLayout, add
from insight.models.blocks.pre_norm import PreNormBlock
from insight.models.caches import LayerCache
from insight.models.masks import Mask
from insight.models.positions.base import PositionTables


@dataclass(frozen=True)
class BranchNorm(BlockLayout):
    """x + norm(attention(x)), then x + norm(feed_forward(x)): bounds what a branch can add."""

    def build(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: Callable[[], nn.Module],
        dropout: float,
    ) -> Block:
        return _BranchNormBlock(attention, feed_forward, make_norm, dropout)


class _BranchNormBlock(PreNormBlock):
    def forward(
        self, hidden: torch.Tensor, *, mask: Mask, tables: PositionTables, cache: LayerCache | None = None
    ) -> torch.Tensor:
        mixed = self.attention(hidden, mask=mask, tables=tables, cache=cache)
        hidden = add(hidden, self.drop(self.attention_norm(mixed)))
        return add(hidden, self.drop(self.feed_forward_norm(self.feed_forward(hidden))))
