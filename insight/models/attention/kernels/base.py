"""The interface of a kernel."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from insight.models.attention.masks import Mask


class Kernel(ABC):
    """A way to compute attention."""

    @abstractmethod
    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Mask, scale: float
    ) -> torch.Tensor:
        """Attention output.

        Args:
            query: ``(batch, num_heads, num_queries, head_dim)``.
            key: ``(batch, num_key_value_heads, num_keys, head_dim)``; query head ``i`` reads key head
                ``i // (num_heads / num_key_value_heads)``.
            value: Like ``key``.
            mask: Which keys each query sees.
            scale: Factor of the scores, usually ``head_dim ** -0.5``.

        Returns:
            Like ``query``.
        """
