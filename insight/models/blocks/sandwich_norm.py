"""A norm before and one after each branch (Ding et al. 2021, arXiv 2105.13290; Gemma 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.models.blocks.base import Branch, SequentialBlock, _SequentialLayout, add


class _SandwichNormBlock(SequentialBlock):
    norms = ("norm", "output_norm")

    def add_branch(self, hidden: torch.Tensor, name: str, branch: Branch) -> torch.Tensor:
        output = branch(self.norm(name)(hidden))
        return add(hidden, self.drop(self.norm(name, "output_norm")(output)))


@dataclass(frozen=True)
class SandwichNorm(_SequentialLayout):
    """x + norm(attention(norm(x))), then x + norm(feed_forward(norm(x)))."""

    block = _SandwichNormBlock
