"""A norm before each branch (Xiong et al. 2020, arXiv 2002.04745)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.models.blocks.base import Branch, SequentialBlock, _SequentialLayout, add


class _PreNormBlock(SequentialBlock):
    def add_branch(self, hidden: torch.Tensor, name: str, branch: Branch) -> torch.Tensor:
        return add(hidden, self.drop(branch(self.norm(name)(hidden))))


@dataclass(frozen=True)
class PreNorm(_SequentialLayout):
    """x + attention(norm(x)), then x + feed_forward(norm(x)): trains stably at any depth."""

    block = _PreNormBlock
