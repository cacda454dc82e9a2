"""Plain matrix products that hold the scores: slow, any dtype, and the weights can be looked at."""

from __future__ import annotations

import torch

from insight.models.attention.kernels.base import Kernel
from insight.models.attention.masks import Mask


class ReferenceKernel(Kernel):
    """The formula written down (Vaswani et al. 2017, arXiv 1706.03762)."""

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Mask, scale: float
    ) -> torch.Tensor:
        weights = self.weights(query, key, mask, scale)
        return weights @ value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)

    def weights(self, query: torch.Tensor, key: torch.Tensor, mask: Mask, scale: float) -> torch.Tensor:
        """The softmax weights ``(batch, num_heads, num_queries, num_keys)``; rows sum to 1."""
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = query @ key.transpose(-1, -2) * scale
        allowed = mask.allowed(query.shape[2], key.shape[2], query.device)
        return scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1)
