"""RMS norm whose factors are one more than the learned numbers, as in Gemma."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from insight.models.norms.base import Norm, require_eps
from insight.models.norms.rms import rms_norm


@dataclass(frozen=True)
class OffsetRMSNorm(Norm):
    """x / rms(x) * (1 + weight); the weight begins at zero, so decay pulls the factors towards one.

    Args:
        eps: Added to the mean square before the root.
    """

    eps: float = 1e-6

    def __post_init__(self) -> None:
        require_eps(self.eps)

    def build(self, size: int) -> nn.Module:
        return _OffsetRMSNorm(size, self.eps)


class _OffsetRMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(size))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        # Gemma multiplies in float32 and rounds once; a factor near one would lose what was learned.
        wide = torch.promote_types(hidden.dtype, torch.float32)
        return rms_norm(hidden.to(wide), 1 + self.weight.to(wide), self.eps).to(hidden.dtype)
