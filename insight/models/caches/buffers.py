"""Caches of keys and values in two buffers: one for every token, and a ring for sliding windows."""

from __future__ import annotations

import torch
from torch import Tensor

from insight.models.caches.base import CacheShape, CacheStep, LayerCache
from insight.models.masks import CausalMask, Mask, PositionMask
from insight.runtime.errors import ConfigError


class BufferCache(LayerCache):
    """A cache in which the token at position p lies in slot p modulo the number of slots.

    Args:
        shape: Rows, data type and device of the buffers.
        num_heads: Number of heads stored.
        head_dim: Channels of a value.
        extra_channels: Channels of a key beyond ``head_dim``.
        num_slots: Number of tokens stored; ``None`` = all.
    """

    def __init__(
        self,
        shape: CacheShape,
        num_heads: int,
        head_dim: int,
        extra_channels: int = 0,
        num_slots: int | None = None,
    ) -> None:
        self.num_slots = shape.max_length if num_slots is None else num_slots
        sizes = (shape.batch_size, num_heads, self.num_slots)
        # Zeros, not empty memory: a masked NaN would still poison a weighted sum (0 x NaN).
        self.keys = torch.zeros(*sizes, head_dim + extra_channels, dtype=shape.dtype, device=shape.device)
        self.values = torch.zeros(*sizes, head_dim, dtype=shape.dtype, device=shape.device)
        self.length = 0

    def store_rows(self, key: Tensor, value: Tensor, step: CacheStep) -> None:
        """Store each row's tokens in their slots, and no padding."""
        positions = step.stored_positions
        # Only the newest tokens of a chunk longer than the buffer are stored: others would share their slots.
        stays = (positions >= 0) & (positions >= (step.stops - self.num_slots).unsqueeze(1))
        rows, columns = stays.nonzero(as_tuple=True)
        slots = positions[rows, columns] % self.num_slots
        self.keys[rows, :, slots] = key.transpose(1, 2)[rows, columns].to(self.keys.dtype)
        self.values[rows, :, slots] = value.transpose(1, 2)[rows, columns].to(self.values.dtype)
        self.length = step.longest

    def reorder(self, rows: Tensor) -> None:
        self.keys, self.values = self.keys[rows], self.values[rows]


def _causal(mask: Mask) -> CausalMask:
    """Refuse a mask that depends on more than the distance of a key, where keys are not in order."""
    if not isinstance(mask, CausalMask):
        raise ConfigError(
            f"{type(mask).__name__} with a cache of a sliding window or of rows that differ: these know "
            "causal attention only",
            "use window=null and rows of equal length, or no cache",
        )
    return mask


class FullCache(BufferCache):
    """A cache that keeps every token, each in its own slot; arguments as in :class:`BufferCache`."""

    def append(self, key: Tensor, value: Tensor, mask: Mask) -> tuple[Tensor, Tensor, Mask]:
        if self.step is None:
            stop = self.length + key.shape[2]
            self.keys[:, :, self.length : stop] = key
            self.values[:, :, self.length : stop] = value
            self.length = stop
        else:
            self.store_rows(key, value, self.step)
            stop = self.length
            slots = torch.arange(stop, device=key.device).unsqueeze(0)
            mask = PositionMask(self.step.positions, slots, _causal(mask))
        return self.keys[:, :, :stop].to(key.dtype), self.values[:, :, :stop].to(value.dtype), mask


class RingCache(BufferCache):
    """A ring in which the newest tokens overwrite the oldest.

    It has as many slots as the window sees, and ``max_rollback`` more. The position of the token in a slot
    follows from the number of tokens, so it is not stored. Arguments are as in :class:`BufferCache`;
    ``window`` is the number of keys that a query sees, its own included.
    """

    def __init__(
        self, shape: CacheShape, num_heads: int, head_dim: int, extra_channels: int = 0, *, window: int
    ) -> None:
        num_slots = min(window + shape.max_rollback, shape.max_length)
        super().__init__(shape, num_heads, head_dim, extra_channels, num_slots)
        self.window = window
        # Tokens that were ever stored, including removed ones: a scalar, or one number for each row.
        self._written = torch.zeros((), dtype=torch.int64, device=shape.device)

    def append(self, key: Tensor, value: Tensor, mask: Mask) -> tuple[Tensor, Tensor, Mask]:
        _causal(mask)
        if self.step is not None:
            return self._append_rows(key, value, self.step)
        return self._append_newest(key, value) if key.shape[2] == 1 else self._append_chunk(key, value, mask)

    def can_truncate(self, length: int | Tensor) -> bool:
        # The next query stands at `length` and sees keys from length - window + 1; tokens `num_slots` behind
        # the newest token ever stored have been overwritten.
        lengths = torch.as_tensor(length).to(self._written)
        oldest_needed = (lengths - self.window + 1).clamp_min(0)
        lost = (oldest_needed < self._written - self.num_slots) & (lengths < self.length)
        return not bool(lost.any())

    def reorder(self, rows: Tensor) -> None:
        super().reorder(rows)
        if self._written.ndim:
            self._written = self._written[rows]

    def _append_newest(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Mask]:
        """Store one token in the slot of one that the window no longer shows; nothing is copied."""
        slot = self.length % self.num_slots
        # A slice, not an index: a compiler would make one graph for every slot.
        self.keys[:, :, slot : slot + 1] = key
        self.values[:, :, slot : slot + 1] = value
        stop = self._advance(1)
        filled = min(self.length, self.num_slots)
        positions = self._positions(stop)[:, :filled]
        mask = PositionMask(stop.unsqueeze(1) - 1, positions, CausalMask(self.window), filled <= self.window)
        return self.keys[:, :, :filled].to(key.dtype), self.values[:, :, :filled].to(value.dtype), mask

    def _append_chunk(self, key: Tensor, value: Tensor, mask: Mask) -> tuple[Tensor, Tensor, Mask]:
        """Show several tokens the earlier ones, even if the ring cannot hold all of them."""
        start, num_new = self.length, key.shape[2]
        num_old = min(start, self.window - 1)
        old = torch.arange(start - num_old, start, device=key.device) % self.num_slots
        all_keys = torch.cat([self.keys[:, :, old].to(key.dtype), key], dim=2)
        all_values = torch.cat([self.values[:, :, old].to(value.dtype), value], dim=2)
        kept = min(num_new, self.num_slots)
        new = torch.arange(start + num_new - kept, start + num_new, device=key.device) % self.num_slots
        self.keys[:, :, new] = key[:, :, num_new - kept :].to(self.keys.dtype)
        self.values[:, :, new] = value[:, :, num_new - kept :].to(self.values.dtype)
        self._advance(num_new)
        return all_keys, all_values, mask

    def _append_rows(self, key: Tensor, value: Tensor, step: CacheStep) -> tuple[Tensor, Tensor, Mask]:
        """Return the old ring and the new tokens, of rows of different lengths, distinguished by position."""
        positions = torch.cat([self._positions(step.starts), step.stored_positions], dim=1)
        all_keys = torch.cat([self.keys.to(key.dtype), key], dim=2)
        all_values = torch.cat([self.values.to(value.dtype), value], dim=2)
        self.store_rows(key, value, step)
        self._written = torch.maximum(self._written, step.stops)
        return all_keys, all_values, PositionMask(step.positions, positions, CausalMask(self.window))

    def _positions(self, stops: Tensor) -> Tensor:
        """Return the position in each slot after ``stops`` tokens ``(rows,)``; below 0 if empty."""
        last = stops.unsqueeze(1) - 1
        return last - (last - torch.arange(self.num_slots, device=stops.device)) % self.num_slots

    def _advance(self, num_tokens: int) -> Tensor:
        self.length += num_tokens
        stop = torch.tensor([self.length], device=self._written.device)
        self._written = torch.maximum(self._written, stop[0])
        return stop


def make_layer_cache(
    shape: CacheShape, num_heads: int, head_dim: int, extra_channels: int, window: int | None
) -> BufferCache:
    """Make a ring if a window is shorter than the longest sequence, otherwise a slot for every token.

    The arguments are those of :class:`BufferCache` and :class:`RingCache`; ``window=None`` sees all keys.
    """
    if window is None or window + shape.max_rollback >= shape.max_length:
        return FullCache(shape, num_heads, head_dim, extra_channels)
    return RingCache(shape, num_heads, head_dim, extra_channels, window=window)
