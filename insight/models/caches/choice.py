"""Which cache a layer needs."""

from __future__ import annotations

import torch

from insight.models.caches.buffers import BufferCache
from insight.models.caches.full import FullCache
from insight.models.caches.ring import RingCache


def make_layer_cache(
    batch_size: int,
    num_key_value_heads: int,
    max_length: int,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    extra_channels: int = 0,
    window: int | None = None,
    max_rollback: int = 0,
) -> BufferCache:
    """A ring where a window is shorter than the longest sequence, otherwise a place for every token.

    Args:
        batch_size: Rows.
        num_key_value_heads: Heads stored.
        max_length: Tokens that may come.
        head_dim: Channels of a value.
        dtype: Of the stored values.
        device: Where they lie.
        extra_channels: Channels that a key has beyond ``head_dim``.
        window: Keys that a query sees; ``None`` = all.
        max_rollback: Newest tokens that can be taken back.
    """
    shape = (batch_size, num_key_value_heads, max_length, head_dim)
    if window is None or window + max_rollback >= max_length:
        return FullCache(*shape, dtype, device, extra_channels)
    return RingCache(*shape, dtype, device, extra_channels, window=window, max_rollback=max_rollback)
