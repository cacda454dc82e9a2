"""A norm before each branch (Xiong et al. 2020, arXiv 2002.04745)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from insight.models.attention import AttentionModule, CrossAttentionModule
from insight.models.blocks.base import Block, BlockLayout, Branch, SequentialBlock, add


@dataclass(frozen=True)
class PreNorm(BlockLayout):
    """x + attention(norm(x)), then x + feed_forward(norm(x)): trains stably at any depth."""

    def build(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: Callable[[], nn.Module],
        dropout: float,
        cross_attention: CrossAttentionModule | None = None,
    ) -> Block:
        return _PreNormBlock(attention, feed_forward, make_norm, dropout, cross_attention)


class _PreNormBlock(SequentialBlock):
    def add_branch(self, hidden: torch.Tensor, name: str, branch: Branch) -> torch.Tensor:
        return add(hidden, self.drop(branch(self.norm(name)(hidden))))
