"""YaRN (Peng et al. 2023, arXiv 2309.00071)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from insight.models.checks import require_positive
from insight.models.positions.scaling.base import RopeScaling, require_factor
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class YarnScaling(RopeScaling):
    """Short wavelengths stay, long ones are divided by ``factor``, a ramp between.

    Args:
        factor: Longer context divided by the trained one.
        original_length: Tokens trained on.
        beta_fast: Pairs that turn at least so often in the original length stay as they are.
        beta_slow: Pairs that turn at most so often are divided by ``factor``.
        truncate: Whether the ramp begins and ends at whole pairs (gpt-oss: not).
        attention_factor: Factor of rotated queries and keys; null = 0.1 ln(factor) + 1. DeepSeek's ratio
            of two such terms is given here as a number.
    """

    factor: float = 4.0
    original_length: int = 4096
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        require_factor(self.factor)
        require_positive(original_length=self.original_length)
        if not 0 < self.beta_slow < self.beta_fast:
            raise ConfigError(
                f"beta_slow={self.beta_slow}, beta_fast={self.beta_fast}: slow lies below fast",
                "use 1 and 32",
            )
        if self.attention_factor is not None and not self.attention_factor > 0:
            raise ConfigError(
                f"attention_factor={self.attention_factor}: must be above 0", "use null for the paper's value"
            )

    @property
    def amplitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        return 0.1 * math.log(self.factor) + 1.0

    def build(self, series: torch.Tensor, base: float) -> torch.Tensor:
        num_pairs = series.shape[0]
        low, high = (self._pair(turns, num_pairs, base) for turns in (self.beta_fast, self.beta_slow))
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * num_pairs - 1)
        pairs = torch.arange(num_pairs, dtype=series.dtype, device=series.device)
        # The paper's ramp is a step where both ends fall together; a thousandth keeps it finite.
        slow = ((pairs - low) / (high - low or 0.001)).clamp(0, 1)
        return series / self.factor * slow + series * (1 - slow)

    def _pair(self, turns: float, num_pairs: int, base: float) -> float:
        """The (fractional) pair that turns so often in the original length."""
        return num_pairs * math.log(self.original_length / (turns * 2 * math.pi)) / math.log(base)
