"""A norm of the sum after each branch, as in the first transformer (arXiv 1706.03762)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.models.blocks.base import Branch, SequentialBlock, _SequentialLayout, add


class _PostNormBlock(SequentialBlock):
    def add_branch(self, hidden: torch.Tensor, name: str, branch: Branch) -> torch.Tensor:
        output: torch.Tensor = self.norm(name)(add(hidden, self.drop(branch(hidden))))
        return output


@dataclass(frozen=True)
class PostNorm(_SequentialLayout):
    """norm(x + attention(x)), then norm(x + feed_forward(x)); there is no norm before the head."""

    block = _PostNormBlock

    @property
    def ends_normed(self) -> bool:
        return True
