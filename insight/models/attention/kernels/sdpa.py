"""torch's fused attention, which never holds the scores (flash on CPU and CUDA)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from insight.models.attention.kernels.base import Kernel
from insight.models.attention.masks import Mask


class SDPAKernel(Kernel):
    """``scaled_dot_product_attention`` (Dao et al. 2022, arXiv 2205.14135).

    Dropout inside it is not offered: on CPU it leaves the flash path.
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
            return fused_attention(query, key, value, scale, causal=causal, allowed=allowed)

        return mask.attend(attend, query, key, value)


def fused_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    *,
    causal: bool = False,
    allowed: torch.Tensor | None = None,
) -> torch.Tensor:
    """One call of torch's attention; shapes as in :class:`Kernel`.

    Args:
        query: Queries.
        key: Keys.
        value: Values.
        scale: Factor of the scores.
        causal: Whether query i sees keys 0 to i only; needs as many keys as queries.
        allowed: Bool mask, True = visible; not together with ``causal``.
    """
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=allowed,
        is_causal=causal,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
