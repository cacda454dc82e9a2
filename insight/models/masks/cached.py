"""Queries and keys at given positions, as a cache holds them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.models.masks.base import Attend, Mask, narrower


@dataclass(frozen=True)
class PositionMask(Mask):
    """Causal by position, whatever the order of the keys.

    Args:
        query_positions: int64 ``(batch or 1, num_queries)``.
        key_positions: int64 ``(batch or 1, num_keys)``; below 0 where there is no key.
        window: Only so many keys, the query's own included; ``None`` = all.
        all_visible: Whether the owner of the positions knows that nothing is hidden.
    """

    query_positions: torch.Tensor
    key_positions: torch.Tensor
    window: int | None = None
    all_visible: bool = False

    def allowed(self, num_queries: int, num_keys: int, device: torch.device) -> torch.Tensor:
        distances = self.distances(num_queries, num_keys, device)
        seen = (distances >= 0) & (self.key_positions >= 0).unsqueeze(1)
        if self.window is not None:
            seen &= distances < self.window
        return seen.unsqueeze(1)

    def within(self, window: int | None) -> Mask:
        if window is None:
            return self
        window = narrower(self.window, window)
        return PositionMask(self.query_positions, self.key_positions, window, self.all_visible)

    def attend(
        self, attend: Attend, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        if self.all_visible:
            return attend(query, key, value)
        return super().attend(attend, query, key, value)

    def distances(self, num_queries: int, num_keys: int, device: torch.device) -> torch.Tensor:
        return self.query_positions.unsqueeze(2) - self.key_positions.unsqueeze(1)
