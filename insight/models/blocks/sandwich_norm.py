"""A norm before and one after each branch (Ding et al. 2021, arXiv 2105.13290; Gemma 2)."""

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
class SandwichNorm(BlockLayout):
    """x + norm(attention(norm(x))), then x + norm(feed_forward(norm(x)))."""

    def build(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: Callable[[], nn.Module],
        dropout: float,
    ) -> Block:
        return _SandwichNormBlock(attention, feed_forward, make_norm, dropout)


class _SandwichNormBlock(PreNormBlock):
    def __init__(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: Callable[[], nn.Module],
        dropout: float,
    ) -> None:
        super().__init__(attention, feed_forward, make_norm, dropout)
        self.attention_output_norm = make_norm()
        self.feed_forward_output_norm = make_norm()

    def forward(
        self, hidden: torch.Tensor, *, mask: Mask, tables: PositionTables, cache: LayerCache | None = None
    ) -> torch.Tensor:
        mixed = self.attention(self.attention_norm(hidden), mask=mask, tables=tables, cache=cache)
        hidden = add(hidden, self.drop(self.attention_output_norm(mixed)))
        mapped = self.feed_forward(self.feed_forward_norm(hidden))
        return add(hidden, self.drop(self.feed_forward_output_norm(mapped)))
