"""Bidirectional inside a prefix, causal after it (Raffel et al. 2019, arXiv 1910.10683, section 3.2.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.models.masks.base import Mask, narrower


@dataclass(frozen=True)
class PrefixMask(Mask):
    """Every query sees the whole prefix of its row, and everything before itself.

    Args:
        lengths: Tokens of each row's prefix, int64 ``(batch,)``.
        window: Only keys nearer than that on either side; ``None`` = all.
    """

    lengths: torch.Tensor
    window: int | None = None

    def visible(self, row: torch.Tensor, query: torch.Tensor, key: torch.Tensor, offset: int) -> torch.Tensor:
        distance = query + offset - key
        seen = (distance >= 0) | (key < self.lengths.to(row.device)[row])
        return seen if self.window is None else seen & (distance.abs() < self.window)

    @property
    def num_rows(self) -> int:
        return self.lengths.shape[0]

    def within(self, window: int | None) -> Mask:
        return self if window is None else PrefixMask(self.lengths, narrower(self.window, window))
