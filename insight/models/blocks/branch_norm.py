"""A norm after each branch, inside the residual (OLMo 2, arXiv 2501.00656)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from insight.models.attention import AttentionModule, CrossAttentionModule
from insight.models.blocks.base import Block, BlockLayout, Branch, SequentialBlock, add


@dataclass(frozen=True)
class BranchNorm(BlockLayout):
    """x + norm(attention(x)), then x + norm(feed_forward(x)): bounds what a branch can add."""

    def build(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: Callable[[], nn.Module],
        dropout: float,
        cross_attention: CrossAttentionModule | None = None,
    ) -> Block:
        return _BranchNormBlock(attention, feed_forward, make_norm, dropout, cross_attention)


class _BranchNormBlock(SequentialBlock):
    def add_branch(self, hidden: torch.Tensor, name: str, branch: Branch) -> torch.Tensor:
        return add(hidden, self.drop(self.norm(name)(branch(hidden))))
