"""Plain matrix products that hold the scores: slow, but for any dtype, and with visible weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from insight.models.attention.kernels.base import PLAIN, Kernel, MaskedKernel, ScoreChange, soft_cap
from insight.models.masks import CausalMask, Mask


class ReferenceKernel(Kernel):
    """Attention by its formula (Vaswani et al. 2017, arXiv 1706.03762).

    Soft caps are those of Gemma 2 (arXiv 2408.00118), sinks those of gpt-oss (arXiv 2508.10925).
    """

    name = "reference"
    caps_scores = True

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float, change: ScoreChange = PLAIN
    ) -> Tensor:
        return _weighted_values(self.weights(query, key, mask, scale, change), value, change.dropout)

    def weights(
        self, query: Tensor, key: Tensor, mask: Mask, scale: float, change: ScoreChange = PLAIN
    ) -> Tensor:
        """The softmax weights ``(batch, num_heads, num_queries, num_keys)``.

        Rows sum to 1, or to 1 minus the sink's weight; a row that sees no key is zero.
        """
        allowed = mask.allowed(query.shape[2], key.shape[2], query.device)
        return _softmax_weights(query, key, allowed, scale, change)


def _softmax_weights(
    query: Tensor, key: Tensor, allowed: Tensor | None, scale: float, change: ScoreChange
) -> Tensor:
    """Attention weights in the order of :class:`ScoreChange`; ``allowed=None`` shows all keys."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = soft_cap(query @ key.transpose(-1, -2) * scale, change.soft_cap)
    if change.bias is not None:
        scores = scores + change.bias.to(scores.dtype)
    if allowed is not None:
        # The smallest number instead of -inf: the softmax of a row of -inf and its gradient would be NaN.
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    if change.sinks is not None:
        sink = change.sinks.to(scores.dtype)[None, :, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sink], dim=-1)
    weights = scores.softmax(dim=-1)[..., : key.shape[2]]
    return weights if allowed is None else weights * allowed


def _weighted_values(weights: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Weighted sums of values, ``(batch, num_heads, num_queries, channels)``."""
    if dropout:
        weights = F.dropout(weights, dropout)
    return weights @ value.repeat_interleave(weights.shape[1] // value.shape[1], dim=1)


class PlainKernel(MaskedKernel):
    """The formula of :class:`ReferenceKernel` in the calls that a mask makes; a window costs its band."""

    name = "plain products"
    caps_scores = True

    def attend(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        allowed = options.get("attn_mask")
        if options.get("is_causal"):
            allowed = CausalMask().allowed(query.shape[2], key.shape[2], query.device)
        change = ScoreChange(soft_cap=options.get("soft_cap"))
        weights = _softmax_weights(query, key, allowed, options["scale"], change)
        return _weighted_values(weights, value, options.get("dropout_p", 0.0))
