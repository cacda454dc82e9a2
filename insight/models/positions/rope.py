"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), in the layouts of Llama and of GPT-J."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from insight.models.checks import require, require_number
from insight.models.positions.base import Position, PositionEncoding, PositionTables
from insight.models.positions.scaling import RopeScaling


class Frequencies(nn.Module):
    """Angles position / base^(2i/size) for i = 0 … size/2 - 1, changed by a ``scaling`` for longer texts."""

    inverse_frequencies: Tensor

    def __init__(self, size: int, base: float, scaling: RopeScaling | None = None) -> None:
        super().__init__()
        self.size, self.base, self.scaling = size, base, scaling
        self.register_buffer("inverse_frequencies", self._series(torch.empty(0)), persistent=False)

    def reset_parameters(self) -> None:
        """Compute the frequencies again, on their current device."""
        self.inverse_frequencies = self._series(self.inverse_frequencies)

    def _series(self, like: Tensor) -> Tensor:
        # float32 even in a bfloat16 network: rounded frequencies would blur distant positions.
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        exponents = torch.arange(0, self.size, 2, device=like.device, dtype=dtype) / self.size
        series = 1.0 / self.base**exponents
        return series if self.scaling is None else self.scaling.build(series, self.base)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frequencies:
        # Casts (`.bfloat16()`), moves and `.to_empty()` from the meta device all pass here.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.reset_parameters()
        return self

    def angles(self, positions: Tensor) -> Tensor:
        """Map positions ``(...)`` to angles ``(..., size / 2)``."""
        series = self.inverse_frequencies
        if self.scaling is not None:
            series = self.scaling.at_positions(series, positions)
        return positions.unsqueeze(-1) * series


@dataclass(frozen=True)
class Rope(Position):
    """Rotation of channel pairs (i, i + size/2) by position / base^(2i/size).

    Args:
        base: Base of the wavelengths, which run from 2π to 2π · base tokens.
        rotated_share: Share of a head's channels that rotate, from the first on; the others carry no position
            (GPT-NeoX rotates a quarter).
        scaling: Change of the wavelengths for texts longer than those trained on; null for none.
    """

    base: float = 10000.0
    rotated_share: float = 1.0
    scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        require_number(1, 1e15, "use 10000", base=self.base)
        bound = math.nextafter(1.0, 2.0)  # a bound is exclusive, and 1 is the largest share
        require_number(0, bound, "use 1, or NoPosition to rotate none", rotated_share=self.rotated_share)

    def build(self, head_dim: int, num_heads: int = 1) -> PositionEncoding:
        return RotaryEncoding(self._size(head_dim), self.base, self.scaling, interleaved=False)

    def _size(self, head_dim: int) -> int:
        size = int(head_dim * self.rotated_share)
        require(
            self.rotated_share < 1 or head_dim % 2 == 0,
            "rotary positions rotate pairs of channels, so it must be even",
            f"use head_dim={head_dim + 1}, another num_heads, or NoPosition",
            head_dim=head_dim,
        )
        require(
            size > 0 and size % 2 == 0,
            f"{size} of head_dim={head_dim} channels would rotate, which are no pairs",
            "use a share that makes an even number of channels",
            rotated_share=self.rotated_share,
        )
        return size


def _pairs(channels: Tensor, interleaved: bool) -> tuple[Tensor, ...]:
    """Views of the first and of the second channels of all pairs: (2i, 2i + 1), or (i, i + size/2)."""
    return (channels[..., 0::2], channels[..., 1::2]) if interleaved else channels.chunk(2, dim=-1)


class RotaryEncoding(PositionEncoding):
    """The built form of :class:`Rope`; ``size`` is the number of channels of a head that rotate."""

    def __init__(self, size: int, base: float, scaling: RopeScaling | None, interleaved: bool) -> None:
        super().__init__()
        self.size, self.scaling, self.interleaved = size, scaling, interleaved
        self.frequencies = Frequencies(size, base, scaling)
        self.longest_cache = None if scaling is None else scaling.longest_cache

    def tables(self, positions: Tensor) -> PositionTables:
        """Return cosines and sines, each ``(sequence or batch x sequence, 1, size / 2)``."""
        angles = self.frequencies.angles(positions).unsqueeze(-2)
        amplitude = 1.0 if self.scaling is None else self.scaling.amplitude
        if amplitude == 1.0:
            return angles.cos(), angles.sin()
        return angles.cos() * amplitude, angles.sin() * amplitude

    def apply_to_heads(self, heads: Tensor, tables: PositionTables) -> Tensor:
        cosine, sine = tables
        if torch.compiler.is_compiling():  # the compiler fuses the plain formula better than separate passes
            first, second = _pairs(heads[..., : self.size], self.interleaved)
            turned = [first * cosine - second * sine, second * cosine + first * sine]
            joined = (
                torch.stack(turned, dim=-1).flatten(-2) if self.interleaved else torch.cat(turned, dim=-1)
            )
            return (
                joined
                if self.size == heads.shape[-1]
                else torch.cat([joined, heads[..., self.size :]], dim=-1)
            )
        rotated: Tensor = _Rotation.apply(heads, cosine, sine, self.interleaved)  # type: ignore[no-untyped-call]
        return rotated


class _Rotation(torch.autograd.Function):
    """Rotation by angles; its gradient is the inverse rotation, so only the tables are kept."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        ctx.interleaved = interleaved
        return rotate(heads, cosine, sine, interleaved)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        cosine, sine = ctx.saved_tensors
        return rotate(gradient, cosine, -sine, ctx.interleaved), None, None, None


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool = False) -> Tensor:
    """Rotate pairs of the first channels of ``heads`` ``(batch, sequence, heads, head_dim)``.

    ``cosine`` and ``sine`` are ``(..., 1, pairs)``, at most as precise as the heads.
    """
    size = 2 * cosine.shape[-1]
    batch, length, num_heads, head_dim = heads.shape
    first, second = _pairs(heads[..., :size], interleaved)
    # Heads come before tokens in memory, as attention's matrix products need them.
    rotated = heads.new_empty(batch, num_heads, length, head_dim).transpose(1, 2)
    new_first, new_second = _pairs(rotated[..., :size], interleaved)
    torch.mul(first, cosine, out=new_first)
    new_first.addcmul_(second, sine, value=-1)
    torch.mul(second, cosine, out=new_second)
    new_second.addcmul_(first, sine)
    if size < head_dim:
        rotated[..., size:] = heads[..., size:]
    return rotated


@dataclass(frozen=True)
class InterleavedRope(Rope):
    """Rotation of channel pairs (2i, 2i + 1), as in the paper and GPT-J, by position / base^(2i/size).

    It is equivalent to :class:`Rope` with channels in another order, so it matters only for weights that were
    trained with it.
    """

    def build(self, head_dim: int, num_heads: int = 1) -> PositionEncoding:
        return RotaryEncoding(self._size(head_dim), self.base, self.scaling, interleaved=True)
