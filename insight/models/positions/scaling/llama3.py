"""The scaling of Llama 3.1 (Grattafiori et al. 2024, arXiv 2407.21783; formula in Meta's llama-models)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from insight.models.checks import require_positive
from insight.models.positions.scaling.base import RopeScaling, require_factor
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class Llama3Scaling(RopeScaling):
    """Wavelengths far below the original length stay, those above are multiplied, a ramp between.

    Args:
        factor: Longer context divided by the trained one.
        low_frequency_factor: Wavelengths above original_length / low_frequency_factor are multiplied by
            ``factor``.
        high_frequency_factor: Those below original_length / high_frequency_factor stay.
        original_length: Tokens trained on.
    """

    factor: float = 8.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_length: int = 8192

    def __post_init__(self) -> None:
        require_factor(self.factor)
        require_positive(original_length=self.original_length)
        if not 0 < self.low_frequency_factor < self.high_frequency_factor:
            raise ConfigError(
                f"low_frequency_factor={self.low_frequency_factor}, "
                f"high_frequency_factor={self.high_frequency_factor}: low lies below high",
                "use 1 and 4",
            )

    def build(self, series: torch.Tensor, base: float) -> torch.Tensor:
        turns = self.original_length * series / (2 * math.pi)  # in the original length
        width = self.high_frequency_factor - self.low_frequency_factor
        kept = ((turns - self.low_frequency_factor) / width).clamp(0, 1)
        return (1 - kept) * series / self.factor + kept * series
