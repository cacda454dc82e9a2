"""A norm of the sum after each branch, as in the first transformer (arXiv 1706.03762)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from insight.models.attention import AttentionModule, CrossAttentionModule
from insight.models.blocks.base import Block, BlockLayout, Branch, SequentialBlock, add


@dataclass(frozen=True)
class PostNorm(BlockLayout):
    """norm(x + attention(x)), then norm(x + feed_forward(x)); there is no norm before the head."""

    def build(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: Callable[[], nn.Module],
        dropout: float,
        cross_attention: CrossAttentionModule | None = None,
    ) -> Block:
        return _PostNormBlock(attention, feed_forward, make_norm, dropout, cross_attention)

    @property
    def ends_normed(self) -> bool:
        return True


class _PostNormBlock(SequentialBlock):
    def add_branch(self, hidden: torch.Tensor, name: str, branch: Branch) -> torch.Tensor:
        output: torch.Tensor = self.norm(name)(add(hidden, self.drop(branch(hidden))))
        return output
