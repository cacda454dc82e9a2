"""A norm after each branch, inside the residual (OLMo 2, arXiv 2501.00656)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.models.blocks.base import Branch, SequentialBlock, _SequentialLayout, add


class _BranchNormBlock(SequentialBlock):
    def add_branch(self, hidden: torch.Tensor, name: str, branch: Branch) -> torch.Tensor:
        return add(hidden, self.drop(self.norm(name)(branch(hidden))))


@dataclass(frozen=True)
class BranchNorm(_SequentialLayout):
    """x + norm(attention(x)), then x + norm(feed_forward(x)): bounds what a branch can add."""

    block = _BranchNormBlock
