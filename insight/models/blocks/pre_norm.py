"""A norm before each branch (Xiong et al. 2020, arXiv 2002.04745)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from insight.models.attention import AttentionModule
from insight.models.blocks.base import Block, BlockLayout, add
from insight.models.caches import LayerCache
from insight.models.masks import Mask
from insight.models.positions.base import PositionTables


@dataclass(frozen=True)
class PreNorm(BlockLayout):
    """x + attention(norm(x)), then x + feed_forward(norm(x)): trains stably at any depth."""

    def build(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: Callable[[], nn.Module],
        dropout: float,
    ) -> Block:
        return PreNormBlock(attention, feed_forward, make_norm, dropout)


class PreNormBlock(Block):
    """The built form of :class:`PreNorm`."""

    def __init__(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: Callable[[], nn.Module],
        dropout: float,
    ) -> None:
        super().__init__(attention, feed_forward, dropout)
        self.attention_norm = make_norm()
        self.feed_forward_norm = make_norm()

    def forward(
        self, hidden: torch.Tensor, *, mask: Mask, tables: PositionTables, cache: LayerCache | None = None
    ) -> torch.Tensor:
        mixed = self.attention(self.attention_norm(hidden), mask=mask, tables=tables, cache=cache)
        hidden = add(hidden, self.drop(mixed))
        return add(hidden, self.drop(self.feed_forward(self.feed_forward_norm(hidden))))
