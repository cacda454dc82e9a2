"""A query sees what came before it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.models.masks.base import Attend, Mask, narrower
from insight.models.masks.blocks import attend_in_blocks


@dataclass(frozen=True)
class CausalMask(Mask):
    """A query sees its own token and everything before it.

    Args:
        window: Only so many keys, its own included (``0 <= distance < window``); ``None`` = all.
    """

    window: int | None = None

    def visible(self, row: torch.Tensor, query: torch.Tensor, key: torch.Tensor, offset: int) -> torch.Tensor:
        distance = query + offset - key
        seen = distance >= 0
        return seen if self.window is None else seen & (distance < self.window)

    def within(self, window: int | None) -> Mask:
        return self if window is None else CausalMask(narrower(self.window, window))

    def attend(
        self, attend: Attend, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        num_queries, num_keys = query.shape[2], key.shape[2]
        window = num_keys if self.window is None else min(self.window, num_keys)
        if num_queries == 1:
            first = num_keys - window
            return attend(query, key[:, :, first:], value[:, :, first:])
        if window < num_keys:
            return attend_in_blocks(attend, query, key, value, self, window - 1, 0)
        if num_queries == num_keys:
            return attend(query, key, value, causal=True)
        # Kernels align their causal triangle with the first key; behind a cached prefix that hides
        # tokens, so the triangle has to be written out.
        return super().attend(attend, query, key, value)
