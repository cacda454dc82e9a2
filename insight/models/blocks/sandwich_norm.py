"""A norm before and one after each branch (Ding et al. 2021, arXiv 2105.13290; Gemma 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from insight.models.attention import AttentionModule, CrossAttentionModule
from insight.models.blocks.base import Block, BlockLayout, Branch, SequentialBlock, add


@dataclass(frozen=True)
class SandwichNorm(BlockLayout):
    """x + norm(attention(norm(x))), then x + norm(feed_forward(norm(x)))."""

    def build(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: Callable[[], nn.Module],
        dropout: float,
        cross_attention: CrossAttentionModule | None = None,
    ) -> Block:
        return _SandwichNormBlock(attention, feed_forward, make_norm, dropout, cross_attention)


class _SandwichNormBlock(SequentialBlock):
    def __init__(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: Callable[[], nn.Module],
        dropout: float,
        cross_attention: CrossAttentionModule | None = None,
    ) -> None:
        super().__init__(attention, feed_forward, make_norm, dropout, cross_attention)
        self.add_norms("output_norm", make_norm)

    def add_branch(self, hidden: torch.Tensor, name: str, branch: Branch) -> torch.Tensor:
        output = branch(self.norm(name)(hidden))
        return add(hidden, self.drop(self.norm(name, "output_norm")(output)))
