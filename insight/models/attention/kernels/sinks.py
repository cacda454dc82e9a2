"""Attention sinks for kernels that know none: one more key whose value is zero."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from insight.models.masks import Attend


class SinkAttend:
    """A kernel's call with a sink in every softmax (gpt-oss, arXiv 2508.10925).

    A further channel holds sink / scale in the queries, 1 in a key put before all others and 0 in the
    rest, so that key scores just the sink. Where the call is causal a query is put before the others
    too, and the triangle still fits.

    Args:
        attend: The kernel's call.
        sinks: Score of the sink of each head, ``(num_heads,)``.
        scale: Factor of the scores in ``attend``.
    """

    def __init__(self, attend: Attend, sinks: torch.Tensor, scale: float) -> None:
        self.attend = attend
        self.sinks = sinks
        self.scale = scale

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        causal: bool = False,
        allowed: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As the kernel's own call."""
        channel = (self.sinks / self.scale).to(query.dtype)[None, :, None, None]
        query = torch.cat([query, channel.expand(*query.shape[:-1], 1)], dim=-1)
        sink = F.pad(key.new_ones(*key.shape[:2], 1, 1), (key.shape[-1], 0))
        key = torch.cat([sink, F.pad(key, (0, 1))], dim=2)
        value = F.pad(value, (0, 1, 1, 0))
        if causal:
            query = F.pad(query, (0, 0, 1, 0))
        if allowed is not None:
            allowed = F.pad(allowed, (1, 0), value=1 if allowed.dtype == torch.bool else 0)
        output = self.attend(query, key, value, causal=causal, allowed=allowed)
        return output[:, :, int(causal) :, :-1]
