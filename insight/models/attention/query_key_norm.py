"""Normalisation of queries and keys, which keeps attention scores bounded (arXiv 2302.05442)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from insight.models.norms import Norm, RMSNorm
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError, nearest


@dataclass(frozen=True)
class QueryKeyNorm(Component):
    """A normalisation of queries, and one of keys.

    Args:
        norm: How.
        after_position: Whether after positions are encoded, instead of before.
    """

    norm: Norm = RMSNorm()
    after_position: bool = False

    @abstractmethod
    def build(self, num_heads: int, head_dim: int) -> nn.Module:
        """A module ``(batch, sequence, num_heads, head_dim)`` to the same."""


@dataclass(frozen=True)
class HeadNorm(QueryKeyNorm):
    """Each head by itself, all heads with the same factors (Qwen 3; without factors and after the rotation,
    Llama 4).

    Args:
        norm: How.
        after_position: Whether after positions are encoded, instead of before.
    """

    def build(self, num_heads: int, head_dim: int) -> nn.Module:
        return self.norm.build(head_dim)


@dataclass(frozen=True)
class FullWidthNorm(QueryKeyNorm):
    """All heads together, before they are told apart (OLMo 2).

    Args:
        norm: How.
        after_position: Whether after positions are encoded, instead of before.
    """

    def build(self, num_heads: int, head_dim: int) -> nn.Module:
        return _FullWidthNorm(self.norm.build(num_heads * head_dim))


class _FullWidthNorm(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, heads: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm(heads.flatten(2))
        return normed.view(heads.shape)


QueryKeyNormName = Literal["none", "rms", "rms_weightless"]

_NAMED: dict[str, QueryKeyNorm | None] = {
    "none": None,
    "rms": HeadNorm(RMSNorm(eps=1e-6)),
    "rms_weightless": HeadNorm(RMSNorm(eps=1e-6, weight=False)),
}


def find_query_key_norm(choice: QueryKeyNorm | QueryKeyNormName) -> QueryKeyNorm | None:
    """What ``qk_norm`` stands for: a component itself, or ``none``, ``rms`` or ``rms_weightless``.

    Raises:
        ConfigError: There is no such name.
    """
    if isinstance(choice, QueryKeyNorm):
        return choice
    if choice not in _NAMED:
        match = nearest(choice, _NAMED)
        remedy = f"did you mean {match!r}?" if match else f"use one of {', '.join(_NAMED)}"
        raise ConfigError(f"qk_norm={choice!r} is unknown", remedy)
    return _NAMED[choice]
