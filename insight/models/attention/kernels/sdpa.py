"""torch's fused attention, which never holds the scores (flash on CPU and CUDA)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from insight.models.attention.kernels.base import MaskedKernel


class SDPAKernel(MaskedKernel):
    """``scaled_dot_product_attention`` (Dao et al. 2022, arXiv 2205.14135).

    Dropout inside it is not offered: on CPU it leaves the flash path.
    """

    name = "sdpa"

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
        if key.shape[1] == 1:
            # One view for all heads: torch's backward of grouped heads gives each pair of key and value one
            # thread, so a single pair leaves the other threads idle (123 against 89 ms measured).
            key, value = (pair.expand(-1, query.shape[1], -1, -1) for pair in (key, value))
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=allowed,
            is_causal=causal,
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
