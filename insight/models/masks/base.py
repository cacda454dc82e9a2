"""What a mask offers: the cheapest calls of a kernel, and itself, element by element or written out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch

Attend = Callable[..., torch.Tensor]
"""``(query, key, value, *, causal=False, allowed=None) -> output``: one call of a kernel."""


class Mask(ABC):
    """Which keys each query sees. Unless it says otherwise the last query stands at the last key."""

    @abstractmethod
    def visible(self, row: torch.Tensor, query: torch.Tensor, key: torch.Tensor, offset: int) -> torch.Tensor:
        """The description itself: whether a query sees a key, bool, for indices that broadcast together.

        Args:
            row: Index of the row, below :attr:`num_rows`.
            query: Index of the query.
            key: Index of the key.
            offset: Number of keys less number of queries, so that query i stands at key ``i + offset``.
        """

    @abstractmethod
    def within(self, window: int | None) -> Mask:
        """This mask and a sliding window of ``window`` keys; ``None`` changes nothing."""

    @property
    def num_rows(self) -> int:
        """Rows of the batch that are told apart; 1 where all see alike."""
        return 1

    def allowed(self, num_queries: int, num_keys: int, device: torch.device) -> torch.Tensor:
        """The description written out: bool ``(batch or 1, 1, num_queries, num_keys)``, True = visible."""
        rows = torch.arange(self.num_rows, device=device)[:, None, None]
        queries = torch.arange(num_queries, device=device)[:, None]
        keys = torch.arange(num_keys, device=device)
        seen = self.visible(rows, queries, keys, num_keys - num_queries)
        return seen.expand(self.num_rows, num_queries, num_keys).unsqueeze(1)

    def attend(
        self, attend: Attend, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Run a kernel under this mask without writing the mask out where the kernel allows it.

        Args:
            attend: The kernel's call.
            query: ``(batch, num_heads, num_queries, head_dim)``.
            key: ``(batch, num_key_value_heads, num_keys, head_dim)``.
            value: Like ``key``.
        """
        return attend(query, key, value, allowed=self.allowed(query.shape[2], key.shape[2], query.device))

    def distances(self, num_queries: int, num_keys: int, device: torch.device) -> torch.Tensor:
        """Position of each query minus that of each key, int64 ``(batch or 1, num_queries, num_keys)``."""
        queries = torch.arange(num_keys - num_queries, num_keys, device=device).unsqueeze(1)
        return (queries - torch.arange(num_keys, device=device)).unsqueeze(0)


def narrower(first: int | None, second: int | None) -> int | None:
    """The smaller of two windows, where ``None`` is the unlimited one."""
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)
