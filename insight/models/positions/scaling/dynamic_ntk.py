"""A base that grows with the text (bloc97 and emozilla 2023, r/LocalLLaMA; as in transformers)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from insight.models.checks import require_positive
from insight.models.positions.scaling.base import RopeScaling, require_factor
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class DynamicNTKScaling(RopeScaling):
    """Beyond ``original_length`` tokens the base is multiplied by
    (factor · length / original_length - factor + 1)^(size / (size - 2)).

    Every new token then changes the angles of all, so there is no cache beyond ``original_length``.

    Args:
        factor: How fast the base grows.
        original_length: Tokens trained on.
    """

    factor: float = 2.0
    original_length: int = 2048

    def __post_init__(self) -> None:
        require_factor(self.factor)
        require_positive(original_length=self.original_length)

    def build(self, series: torch.Tensor, base: float) -> torch.Tensor:
        return series

    def at_positions(self, series: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        num_pairs = series.shape[0]
        if num_pairs == 1:  # base^0: a single pair has frequency 1 whatever the base
            return series
        length = positions.max() + 1
        ratio = length.clamp_min(self.original_length).to(series.dtype) / self.original_length
        growth = self.factor * ratio - (self.factor - 1)
        exponents = torch.arange(num_pairs, dtype=series.dtype, device=series.device) / (num_pairs - 1)
        return series / growth**exponents

    def check_cache(self, max_length: int) -> None:
        if max_length > self.original_length:
            raise ConfigError(
                f"max_length={max_length}, original_length={self.original_length}: under DynamicNTKScaling "
                "cached keys beyond the original length go stale with every token",
                f"use a cache of {self.original_length} tokens, or YarnScaling",
            )
