"""A cache that keeps every token up to a fixed capacity."""

from __future__ import annotations

import torch

from insight.models.caches.buffers import BufferCache, causal_window
from insight.models.masks import Mask, PositionMask


class FullCache(BufferCache):
    """Every token in a slot of its own; arguments as in :class:`BufferCache`."""

    def append(
        self, key: torch.Tensor, value: torch.Tensor, mask: Mask
    ) -> tuple[torch.Tensor, torch.Tensor, Mask]:
        if self.step is None:
            stop = self.length + key.shape[2]
            self.keys[:, :, self.length : stop] = key
            self.values[:, :, self.length : stop] = value
            self.length = stop
        else:
            self.store_rows(key, value, self.step)
            stop = self.length
            slots = torch.arange(stop, device=key.device).unsqueeze(0)
            mask = PositionMask(self.step.positions, slots, causal_window(mask))
        return self.keys[:, :, :stop].to(key.dtype), self.values[:, :, :stop].to(value.dtype), mask
