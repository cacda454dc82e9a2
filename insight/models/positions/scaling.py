"""Scalings of rotary frequencies, for contexts longer than those trained on."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from insight.models.checks import require, require_flags, require_number, require_positive
from insight.runtime.component import Component


@dataclass(frozen=True)
class RopeScaling(Component):
    """A change of rotary wavelengths that keeps the angles of longer texts in the trained range."""

    def __post_init__(self) -> None:
        """Check the options that several scalings have."""
        factor, attention_factor = getattr(self, "factor", None), getattr(self, "attention_factor", None)
        require_number(1, 1e6, "use 2, 4 or 8", low_allowed=True, factor=factor)
        require_positive(original_length=getattr(self, "original_length", None))
        require_number(0, 1e6, "use null for the paper's value", attention_factor=attention_factor)
        require_flags(self)

    @abstractmethod
    def build(self, series: Tensor, base: float) -> Tensor:
        """Return the changed frequencies for the ``series`` base^(-2i/size) of all pairs, ``(size / 2,)``."""

    @property
    def amplitude(self) -> float:
        """Factor of the rotated queries and keys."""
        return 1.0

    def at_positions(self, series: Tensor, positions: Tensor) -> Tensor:
        """Return the result of :meth:`build` as it is for a text at int64 ``positions``."""
        return series

    @property
    def longest_cache(self) -> int | None:
        """Number of tokens beyond which new ones change all frequencies; ``None`` if they never do."""
        return None


@dataclass(frozen=True)
class LinearScaling(RopeScaling):
    """Division of all positions by ``factor`` (Chen et al. 2023, arXiv 2306.15595).

    Args:
        factor: Ratio of the longer context to the trained one.
    """

    factor: float = 2.0

    def build(self, series: Tensor, base: float) -> Tensor:
        return series / self.factor


@dataclass(frozen=True)
class DynamicNTKScaling(RopeScaling):
    """Beyond ``original_length`` tokens the base is multiplied by
    (factor · length / original_length - factor + 1)^(size / (size - 2)).

    Every new token then changes all angles, so generation uses no cache beyond ``original_length``.

    Args:
        factor: Speed at which the base grows with the length.
        original_length: Number of tokens of the trained context.
    """

    factor: float = 2.0
    original_length: int = 2048

    def build(self, series: Tensor, base: float) -> Tensor:
        return series

    def at_positions(self, series: Tensor, positions: Tensor) -> Tensor:
        num_pairs = series.shape[0]
        if num_pairs == 1:  # base^0: a single pair has frequency 1, whatever the base
            return series
        length = positions.max() + 1
        ratio = length.clamp_min(self.original_length).to(series.dtype) / self.original_length
        growth = self.factor * ratio - (self.factor - 1)
        exponents = torch.arange(num_pairs, dtype=series.dtype, device=series.device) / (num_pairs - 1)
        return series / growth**exponents

    @property
    def longest_cache(self) -> int | None:
        return self.original_length


@dataclass(frozen=True)
class YarnScaling(RopeScaling):
    """Short wavelengths stay, long ones are multiplied by ``factor``, with a ramp in between (YaRN).

    Peng et al. 2023, arXiv 2309.00071.

    Args:
        factor: Ratio of the longer context to the trained one.
        original_length: Number of tokens of the trained context.
        beta_fast: Pairs with at least this many turns in the original length stay as they are.
        beta_slow: Wavelengths of pairs with at most this many turns are multiplied by ``factor``.
        truncate: Whether the ramp begins and ends at whole pairs (gpt-oss: not).
        attention_factor: Factor of rotated queries and keys; null = 0.1 ln(factor) + 1. Give DeepSeek's ratio
            of two such terms as a number.
    """

    factor: float = 4.0
    original_length: int = 4096
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(0, 1e6, "use 32", beta_fast=self.beta_fast)
        require_number(0, self.beta_fast, "use 1 and 32", beta_slow=self.beta_slow)

    @property
    def amplitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        return 0.1 * math.log(self.factor) + 1.0

    def build(self, series: Tensor, base: float) -> Tensor:
        num_pairs = series.shape[0]
        low, high = (self._pair(turns, num_pairs, base) for turns in (self.beta_fast, self.beta_slow))
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * num_pairs - 1)
        pairs = torch.arange(num_pairs, dtype=series.dtype, device=series.device)
        # The paper's ramp is a step if both ends are equal; a thousandth keeps it finite.
        slow = ((pairs - low) / (high - low or 0.001)).clamp(0, 1)
        return series / self.factor * slow + series * (1 - slow)

    def _pair(self, turns: float, num_pairs: int, base: float) -> float:
        """Return the (fractional) pair with this many turns in the original length."""
        return num_pairs * math.log(self.original_length / (turns * 2 * math.pi)) / math.log(base)


@dataclass(frozen=True)
class Llama3Scaling(RopeScaling):
    """Wavelengths far below the original length stay, those above are multiplied, with a ramp in between.

    Args:
        factor: Ratio of the longer context to the trained one.
        low_frequency_factor: Wavelengths above original_length / low_frequency_factor are multiplied by
            ``factor``.
        high_frequency_factor: Wavelengths below original_length / high_frequency_factor stay.
        original_length: Number of tokens of the trained context.
    """

    factor: float = 8.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_length: int = 8192

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(0, 1e6, "use 4", high_frequency_factor=self.high_frequency_factor)
        # Both may be equal (Llama 4): there is no ramp then.
        bound = math.nextafter(self.high_frequency_factor, math.inf)
        require_number(0, bound, "use 1 and 4", low_frequency_factor=self.low_frequency_factor)

    def build(self, series: Tensor, base: float) -> Tensor:
        turns = self.original_length * series / (2 * math.pi)  # in the original length
        width = self.high_frequency_factor - self.low_frequency_factor
        if width == 0:
            return torch.where(turns < self.low_frequency_factor, series / self.factor, series)
        kept = ((turns - self.low_frequency_factor) / width).clamp(0, 1)
        return (1 - kept) * series / self.factor + kept * series


@dataclass(frozen=True)
class LongRopeScaling(RopeScaling):
    """The wavelength of each pair is multiplied by a separate factor, which the authors searched for.

    Texts of more than ``original_length`` tokens take ``long_factors``, others ``short_factors``; the longest
    text of a batch decides. Cached keys would become stale where the factors change, so beyond the original
    length generation uses no cache unless ``always_long`` is set.

    Args:
        short_factors: Factors for short texts, one for each pair of channels.
        long_factors: Factors for long texts, one for each pair of channels.
        factor: Ratio of the longer context to the original one; rotated queries and keys are multiplied by
            sqrt(1 + ln(factor) / ln(original_length)).
        original_length: Number of tokens of the context before it was extended.
        attention_factor: Factor of rotated queries and keys instead of that formula; null for the formula.
        always_long: Whether short texts take ``long_factors`` too.
    """

    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    factor: float = 32.0
    original_length: int = 4096
    attention_factor: float | None = None
    always_long: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(minimum=2, original_length=self.original_length)  # its logarithm is a divisor
        require(
            len(self.short_factors) == len(self.long_factors) > 0,
            f"has {len(self.long_factors)} numbers and short_factors {len(self.short_factors)}; each has "
            "one a pair of channels",
            "copy both from the model's configuration",
            long_factors=list(self.long_factors),
        )
        for short, long in zip(self.short_factors, self.long_factors, strict=True):
            require_number(0, 1e6, "use 1 to change nothing", short_factors=short, long_factors=long)

    @property
    def amplitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        return math.sqrt(1 + math.log(self.factor) / math.log(self.original_length))

    def build(self, series: Tensor, base: float) -> Tensor:
        num_pairs, num_factors = series.shape[0], len(self.long_factors)
        problem = f"has {num_factors} numbers, and {num_pairs} pairs of channels rotate"
        remedy = f"list {num_pairs} numbers, or choose another head_dim or rotated_share"
        require(num_pairs == num_factors, problem, remedy, long_factors=list(self.long_factors))
        return series

    def at_positions(self, series: Tensor, positions: Tensor) -> Tensor:
        long = series.new_tensor(self.long_factors)
        if self.always_long:
            return series / long
        short = series.new_tensor(self.short_factors)
        return series / torch.where(positions.max() >= self.original_length, long, short)

    @property
    def longest_cache(self) -> int | None:
        return None if self.always_long else self.original_length
