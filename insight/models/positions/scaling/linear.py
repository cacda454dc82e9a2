"""Position interpolation (Chen et al. 2023, arXiv 2306.15595)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.models.positions.scaling.base import RopeScaling, require_factor


@dataclass(frozen=True)
class LinearScaling(RopeScaling):
    """All positions are divided by ``factor``.

    Args:
        factor: Longer context divided by the trained one.
    """

    factor: float = 2.0

    def __post_init__(self) -> None:
        require_factor(self.factor)

    def build(self, series: torch.Tensor, base: float) -> torch.Tensor:
        return series / self.factor
