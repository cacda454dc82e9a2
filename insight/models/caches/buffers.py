"""Keys and values in two buffers that are allocated once."""

from __future__ import annotations

import torch

from insight.models.caches.base import CacheStep, LayerCache
from insight.models.masks import CausalMask, Mask
from insight.runtime.errors import ConfigError


class BufferCache(LayerCache):
    """A cache in which the token at position p lies in slot p modulo the number of slots.

    Args:
        batch_size: Rows.
        num_key_value_heads: Heads stored.
        num_slots: Tokens stored.
        head_dim: Channels of a value.
        dtype: Of the stored values.
        device: Where they lie.
        extra_channels: Channels that a key has beyond ``head_dim``.
    """

    def __init__(
        self,
        batch_size: int,
        num_key_value_heads: int,
        num_slots: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
        extra_channels: int = 0,
    ) -> None:
        shape = (batch_size, num_key_value_heads, num_slots)
        # Zeros, not empty: a NaN in memory that is masked still poisons a weighted sum (0 x NaN).
        self.keys = torch.zeros(*shape, head_dim + extra_channels, dtype=dtype, device=device)
        self.values = torch.zeros(*shape, head_dim, dtype=dtype, device=device)
        self.num_slots = num_slots
        self.length = 0

    def store_rows(self, key: torch.Tensor, value: torch.Tensor, step: CacheStep) -> None:
        """Put each row's tokens where they belong, and padding nowhere."""
        positions = step.stored_positions
        # Of a chunk longer than the buffer only the newest tokens: others would share their slots.
        stays = (positions >= 0) & (positions >= (step.stops - self.num_slots).unsqueeze(1))
        rows, columns = stays.nonzero(as_tuple=True)
        slots = positions[rows, columns] % self.num_slots
        self.keys[rows, :, slots] = key.transpose(1, 2)[rows, columns].to(self.keys.dtype)
        self.values[rows, :, slots] = value.transpose(1, 2)[rows, columns].to(self.values.dtype)
        self.length = step.longest

    def reorder(self, rows: torch.Tensor) -> None:
        self.keys, self.values = self.keys[rows], self.values[rows]


def causal_window(mask: Mask) -> int | None:
    """The window of a causal mask, for caches that hold keys out of order.

    Raises:
        ConfigError: The mask shows keys by more than their distance.
    """
    if not isinstance(mask, CausalMask):
        raise ConfigError(
            f"{type(mask).__name__} with a sliding or ragged cache: these know causal attention only",
            "use window=null and rows of equal length, or no cache",
        )
    return mask.window
