"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864) in the half-split layout of Llama."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
        if torch.compiler.is_compiling():  # the compiler fuses the plain formula better than written passes
            cosine, sine = tables
            first, second = heads.chunk(2, dim=-1)
            return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
        rotated: torch.Tensor = _Rotation.apply(heads, *tables)  # type: ignore[no-untyped-call]
        return rotated


class _Rotation(torch.autograd.Function):
    """Rotation by angles; its gradient is the rotation back, so nothing but the tables is kept."""

    @staticmethod
    def forward(ctx: Any, heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cosine, sine)
        return rotate(heads, cosine, sine)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return rotate(gradient, cosine, -sine), None, None


def rotate(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotate the pairs (i, i + head_dim/2) of ``heads`` ``(batch, sequence, heads, head_dim)``.

    Args:
        heads: At least as precise as the tables.
        cosine: ``(..., 1, head_dim / 2)``.
        sine: Like ``cosine``.
    """
    first, second = heads.chunk(2, dim=-1)
    batch, length, num_heads, head_dim = heads.shape
    # Heads before tokens in memory, as attention's matrix products want them.
    rotated = heads.new_empty(batch, num_heads, length, head_dim).transpose(1, 2)
    new_first, new_second = rotated.chunk(2, dim=-1)
    torch.mul(first, cosine, out=new_first)
    new_first.addcmul_(second, sine, value=-1)
    torch.mul(second, cosine, out=new_second)
    new_second.addcmul_(first, sine)
    return rotated
