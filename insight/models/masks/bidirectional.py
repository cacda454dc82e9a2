"""A query sees what came before it and what comes after it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.models.masks.base import Attend, Mask, narrower
from insight.models.masks.blocks import attend_in_blocks


@dataclass(frozen=True)
class BidirectionalMask(Mask):
    """Every query sees every key.

    Args:
        window: Only keys at most so far away on either side (``|distance| <= window``); ``None`` = all.
    """

    window: int | None = None

    def visible(self, row: torch.Tensor, query: torch.Tensor, key: torch.Tensor, offset: int) -> torch.Tensor:
        distance = (query + offset - key).abs()
        return distance >= 0 if self.window is None else distance <= self.window

    def within(self, window: int | None) -> Mask:
        return self if window is None else BidirectionalMask(narrower(self.window, window))

    def attend(
        self, attend: Attend, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        if self.window is None or self.window >= key.shape[2] - 1:
            return attend(query, key, value)
        return attend_in_blocks(attend, query, key, value, self, self.window, self.window)
