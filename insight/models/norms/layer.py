"""Layer normalisation (Ba et al. 2016, arXiv 1607.06450)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from insight.models.norms.base import Norm, require_eps


@dataclass(frozen=True)
class LayerNorm(Norm):
    """Subtraction of the mean and division by the standard deviation of all channels.

    Args:
        eps: Added to the variance before the root.
        weight: Whether each channel has a learned factor.
        bias: Whether each channel has a learned summand; only together with ``weight``.
    """

    eps: float = 1e-5
    weight: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        require_eps(self.eps)

    def build(self, size: int) -> nn.Module:
        return _LayerNorm(size, self.eps, elementwise_affine=self.weight, bias=self.bias)


class _LayerNorm(nn.LayerNorm):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        # The kernel takes factors of another dtype than the input only in some pairs of dtypes.
        weight, bias = (None if x is None else x.to(hidden.dtype) for x in (self.weight, self.bias))
        return nn.functional.layer_norm(hidden, self.normalized_shape, weight, bias, self.eps)
