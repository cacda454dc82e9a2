"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864) in the half-split layout of Llama."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from insight.models.positions.base import Position, PositionEncoding, PositionTables
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class Rope(Position):
    """Rotation of channel pairs (i, i + head_dim/2) by position / base^(2i/head_dim).

    Args:
        base: Wavelengths run from 2π to 2π · base tokens.
    """

    base: float = 10000.0

    def __post_init__(self) -> None:
        if not self.base > 1:
            raise ConfigError(f"base={self.base}: the base of rotary positions must be above 1", "use 10000")

    def build(self, head_dim: int) -> PositionEncoding:
        if head_dim % 2:
            raise ConfigError(
                f"head_dim={head_dim}: rotary positions rotate pairs of channels, so head_dim must be even",
                f"use head_dim={head_dim + 1}, another num_heads, or NoPosition",
            )
        return RotaryEncoding(head_dim, self.base)


class RotaryEncoding(PositionEncoding):
    """The built form of :class:`Rope`."""

    inverse_frequencies: torch.Tensor

    def __init__(self, head_dim: int, base: float) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.base = base
        self.register_buffer("inverse_frequencies", self._frequencies(torch.empty(0)), persistent=False)

    def _frequencies(self, like: torch.Tensor) -> torch.Tensor:
        # float32 even in a bfloat16 network: rounded frequencies would blur distant positions.
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        exponents = torch.arange(0, self.head_dim, 2, device=like.device, dtype=dtype) / self.head_dim
        return 1.0 / self.base**exponents

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> RotaryEncoding:
        # Casts (`.bfloat16()`), moves and `.to_empty()` from the meta device all come through here.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.inverse_frequencies = self._frequencies(self.inverse_frequencies)
        return self

    def tables(self, positions: torch.Tensor) -> PositionTables:
        """Cosines and sines, each ``(sequence or batch x sequence, 1, head_dim / 2)``."""
        angles = (positions.unsqueeze(-1) * self.inverse_frequencies).unsqueeze(-2)
        return angles.cos(), angles.sin()

    def apply_to_heads(self, heads: torch.Tensor, tables: PositionTables) -> torch.Tensor:
        cosine, sine = tables
        first, second = heads.chunk(2, dim=-1)
        rotated = torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
        return rotated.to(heads.dtype)
