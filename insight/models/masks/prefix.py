"""Bidirectional inside a prefix, causal after it (Raffel et al. 2019, arXiv 1910.10683, section 3.2.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.models.masks.base import Mask, narrower


@dataclass(frozen=True)
class PrefixMask(Mask):
    """Every query sees the whole prefix of its row, and everything before itself.

    Args:
        lengths: Tokens of each row's prefix, int64 ``(batch,)``.
        window: Only keys nearer than that on either side; ``None`` = all.
    """

    lengths: torch.Tensor
    window: int | None = None

    def allowed(self, num_queries: int, num_keys: int, device: torch.device) -> torch.Tensor:
        distances = self.distances(num_queries, num_keys, device)
        inside = torch.arange(num_keys, device=device) < self.lengths.to(device)[:, None, None]
        seen = (distances >= 0) | inside
        if self.window is not None:
            seen &= distances.abs() < self.window
        return seen.unsqueeze(1)

    def within(self, window: int | None) -> Mask:
        return self if window is None else PrefixMask(self.lengths, narrower(self.window, window))
