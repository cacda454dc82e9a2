"""Plain matrix products, but only for what the mask shows: for scores that no fused kernel can bound."""

from __future__ import annotations

import torch

from insight.models.attention.kernels.base import MaskedKernel, ScoreChange
from insight.models.attention.kernels.reference import softmax_weights, weighted_values
from insight.models.masks import CausalMask


class PlainKernel(MaskedKernel):
    """The formula of :class:`ReferenceKernel` in the calls that a mask makes: a window costs its band."""

    name = "plain products"
    caps_scores = True

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scale: float,
        causal: bool = False,
        allowed: torch.Tensor | None = None,
        soft_cap: float | None = None,
    ) -> torch.Tensor:
        if causal:
            allowed = CausalMask().allowed(query.shape[2], key.shape[2], query.device)
        weights = softmax_weights(query, key, allowed, scale, ScoreChange(soft_cap=soft_cap))
        return weighted_values(weights, value)
