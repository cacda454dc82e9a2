"""Kernels: softmax(q k^T * scale) v under a mask."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F

from insight.models.attention.masks import Mask
from insight.runtime.errors import ConfigError, nearest


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


class SDPAKernel(Kernel):
    """torch's fused attention (flash on CPU and CUDA), which never holds the scores.

    Dao et al. 2022, arXiv 2205.14135. Dropout inside it is not offered: on CPU it leaves the flash path.
    """

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Mask, scale: float
    ) -> torch.Tensor:
        def attend(
            query: torch.Tensor,
            key: torch.Tensor,
            value: torch.Tensor,
            *,
            causal: bool = False,
            allowed: torch.Tensor | None = None,
        ) -> torch.Tensor:
            return F.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=allowed,
                is_causal=causal,
                scale=scale,
                enable_gqa=query.shape[1] != key.shape[1],
            )

        return mask.attend(attend, query, key, value)


class ReferenceKernel(Kernel):
    """Plain matrix products that hold the scores: slow, any dtype, and the weights can be looked at."""

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


_KERNELS: dict[str, type[Kernel]] = {"auto": SDPAKernel, "sdpa": SDPAKernel, "reference": ReferenceKernel}


def make_kernel(name: str) -> Kernel:
    """The kernel called ``name``: ``"sdpa"``, ``"reference"`` or ``"auto"`` (the fastest that fits).

    Raises:
        ConfigError: There is no such kernel.
    """
    if name not in _KERNELS:
        match = nearest(name, _KERNELS)
        remedy = f"did you mean {match!r}?" if match else f"use one of {', '.join(_KERNELS)}"
        raise ConfigError(f"kernel={name!r} is unknown", remedy)
    return _KERNELS[name]()
