"""LongRoPE (Ding et al. 2024, arXiv 2402.13753), in the form that Phi-3 was released in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from insight.models.positions.scaling.base import RopeScaling, require_factor
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class LongRopeScaling(RopeScaling):
    """The wavelength of each pair is multiplied by a factor of its own, which the authors searched for.

    Texts of more than ``original_length`` tokens take ``long_factors``, others ``short_factors``; in a batch
    the longest text decides. Whoever writes beyond the original length needs ``always_long``, since keys
    that a cache holds would go stale where the factors change.

    Args:
        short_factors: One a pair of channels.
        long_factors: One a pair of channels.
        factor: Longer context divided by the original one; rotated queries and keys are multiplied by
            sqrt(1 + ln(factor) / ln(original_length)).
        original_length: Tokens trained on before the context was made longer.
        attention_factor: What they are multiplied by instead; null for the above.
        always_long: Whether short texts take ``long_factors`` too.
    """

    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    factor: float = 32.0
    original_length: int = 4096
    attention_factor: float | None = None
    always_long: bool = False

    def __post_init__(self) -> None:
        require_factor(self.factor)
        if self.original_length < 2:  # its logarithm divides
            raise ConfigError(f"original_length={self.original_length}: must be at least 2", "use 4096")
        if len(self.short_factors) != len(self.long_factors) or not self.long_factors:
            raise ConfigError(
                f"short_factors has {len(self.short_factors)} numbers, long_factors "
                f"{len(self.long_factors)}: each has one a pair of channels",
                "copy both from the model's configuration",
            )
        for name in ("short_factors", "long_factors"):
            wrong = [value for value in getattr(self, name) if not 0 < value < 1e6]
            if wrong:
                raise ConfigError(f"{name} holds {wrong[0]}: factors are above 0", "use 1 to change nothing")
        if self.attention_factor is not None and not self.attention_factor > 0:
            raise ConfigError(
                f"attention_factor={self.attention_factor}: must be above 0", "use null for the paper's value"
            )

    @property
    def amplitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        return math.sqrt(1 + math.log(self.factor) / math.log(self.original_length))

    def build(self, series: torch.Tensor, base: float) -> torch.Tensor:
        if series.shape[0] != len(self.long_factors):
            raise ConfigError(
                f"long_factors has {len(self.long_factors)} numbers, and {series.shape[0]} pairs of channels "
                "rotate: each has one a pair",
                f"list {series.shape[0]} numbers, or choose another head_dim or rotated_share",
            )
        return series

    def at_positions(self, series: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        long = series.new_tensor(self.long_factors)
        if self.always_long:
            return series / long
        short = series.new_tensor(self.short_factors)
        return series / torch.where(positions.max() >= self.original_length, long, short)

    def check_cache(self, max_length: int) -> None:
        if max_length > self.original_length and not self.always_long:
            raise ConfigError(
                f"max_length={max_length}, original_length={self.original_length}: cached keys go stale "
                "where LongRopeScaling turns from short to long factors",
                f"use a cache of {self.original_length} tokens, or always_long=true",
            )
