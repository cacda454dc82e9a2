"""Normalisation of queries and keys per head, which keeps attention scores bounded (arXiv 2302.05442)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from insight.runtime.errors import ConfigError, nearest

_EPS = 1e-6
_CHOICES = ("none", "rms", "rms_weightless")


class QueryKeyNorm(nn.Module):
    """RMS normalisation over head_dim of queries and keys that lie side by side in one tensor.

    Args:
        choice: ``none``, ``rms`` (one learned vector for queries, one for keys) or ``rms_weightless``.
        head_dim: Channels of a head.
    """

    def __init__(self, choice: str, head_dim: int) -> None:
        super().__init__()
        self.choice = choice
        self.head_dim = head_dim
        if choice == "rms":
            self.query_weight = nn.Parameter(torch.ones(head_dim))
            self.key_weight = nn.Parameter(torch.ones(head_dim))

    @staticmethod
    def check(choice: str) -> None:
        """Refuse an unknown choice.

        Raises:
            ConfigError: ``choice`` is none of the three.
        """
        if choice not in _CHOICES:
            match = nearest(choice, _CHOICES)
            remedy = f"did you mean {match!r}?" if match else f"use one of {', '.join(_CHOICES)}"
            raise ConfigError(f"qk_norm={choice!r} is unknown", remedy)

    def forward(self, query_key: torch.Tensor, num_queries: int) -> torch.Tensor:
        """``(batch, sequence, heads, head_dim)`` of which the first ``num_queries`` heads are queries."""
        if self.choice == "none":
            return query_key
        normed = F.rms_norm(query_key, (self.head_dim,), eps=_EPS)
        if self.choice == "rms_weightless":
            return normed
        num_keys = query_key.shape[2] - num_queries
        weight = torch.cat([self.query_weight.expand(num_queries, -1), self.key_weight.expand(num_keys, -1)])
        return normed * weight.to(normed.dtype)
