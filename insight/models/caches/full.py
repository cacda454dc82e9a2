"""A cache that keeps every token up to a fixed capacity."""

from __future__ import annotations

import torch

from insight.models.caches.base import LayerCache


class FullCache(LayerCache):
    """Keys and values in two buffers that are allocated once.

    Args:
        batch_size: Rows.
        num_key_value_heads: Heads stored.
        max_length: Tokens that fit.
        head_dim: Channels of a head.
        dtype: Of the stored values.
        device: Where they lie.
    """

    def __init__(
        self,
        batch_size: int,
        num_key_value_heads: int,
        max_length: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (batch_size, num_key_value_heads, max_length, head_dim)
        # Zeros, not empty: a NaN in memory that is masked still poisons a weighted sum (0 x NaN).
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.length = 0

    def append(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        stop = self.length + key.shape[2]
        self.keys[:, :, self.length : stop] = key
        self.values[:, :, self.length : stop] = value
        self.length = stop
        return self.keys[:, :, :stop].to(key.dtype), self.values[:, :, :stop].to(value.dtype)

    def truncate(self, length: int) -> None:
        self.length = min(self.length, length)
