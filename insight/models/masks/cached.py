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

    def visible(self, row: torch.Tensor, query: torch.Tensor, key: torch.Tensor, offset: int) -> torch.Tensor:
        queries, keys = self.query_positions, self.key_positions
        return self._seen(queries[row % queries.shape[0], query], keys[row % keys.shape[0], key])

    @property
    def num_rows(self) -> int:
        return max(self.query_positions.shape[0], self.key_positions.shape[0])

    def allowed(self, num_queries: int, num_keys: int, device: torch.device) -> torch.Tensor:
        # Without indices: every decoded token of a ragged batch comes through here.
        return self._seen(self.query_positions.unsqueeze(2), self.key_positions.unsqueeze(1)).unsqueeze(1)

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

    def _seen(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        distance = query - key
        seen = (distance >= 0) & (key >= 0)
        return seen if self.window is None else seen & (distance < self.window)
