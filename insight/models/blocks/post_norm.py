"""A norm of the sum after each branch, as in the first transformer (arXiv 1706.03762)."""

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
class PostNorm(BlockLayout):
    """norm(x + attention(x)), then norm(x + feed_forward(x)); there is no norm before the head."""

    def build(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: Callable[[], nn.Module],
        dropout: float,
    ) -> Block:
        return _PostNormBlock(attention, feed_forward, make_norm, dropout)

    @property
    def ends_normed(self) -> bool:
        return True


class _PostNormBlock(PreNormBlock):
    def forward(
        self, hidden: torch.Tensor, *, mask: Mask, tables: PositionTables, cache: LayerCache | None = None
    ) -> torch.Tensor:
        mixed = self.attention(hidden, mask=mask, tables=tables, cache=cache)
        hidden = self.attention_norm(add(hidden, self.drop(mixed)))
        output: torch.Tensor = self.feed_forward_norm(add(hidden, self.drop(self.feed_forward(hidden))))
        return output
