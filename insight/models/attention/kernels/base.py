"""The interface of a kernel."""

from __future__ import annotations

import functools
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


class MaskedKernel(Kernel):
    """A kernel that leaves it to the mask which calls compute just what it shows."""

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Mask, scale: float
    ) -> torch.Tensor:
        return mask.attend(functools.partial(self.attend, scale=scale), query, key, value)

    @abstractmethod
    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scale: float,
        causal: bool = False,
        allowed: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One call; shapes as in :class:`Kernel`.

        Args:
            query: Queries.
            key: Keys.
            value: Values.
            scale: Factor of the scores.
            causal: Whether query i sees keys 0 to i only; needs as many keys as queries.
            allowed: Bool mask, True = visible; not together with ``causal``.
        """
