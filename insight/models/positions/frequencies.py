"""The geometric series of frequencies that rotary and sinusoidal positions share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from insight.models.positions.scaling import RopeScaling


class Frequencies(nn.Module):
    """Angles position / base^(2i/size) for i = 0 … size/2 - 1.

    Args:
        size: Twice the number of frequencies.
        base: Wavelengths run from 2π to 2π · base tokens.
        scaling: What stretches them for longer texts; ``None`` for nothing.
    """

    inverse_frequencies: torch.Tensor

    def __init__(self, size: int, base: float, scaling: RopeScaling | None = None) -> None:
        super().__init__()
        self.size = size
        self.base = base
        self.scaling = scaling
        self.register_buffer("inverse_frequencies", self._series(torch.empty(0)), persistent=False)

    def reset_parameters(self) -> None:
        """The series again, in the memory that is there now."""
        self.inverse_frequencies = self._series(self.inverse_frequencies)

    def _series(self, like: torch.Tensor) -> torch.Tensor:
        # float32 even in a bfloat16 network: rounded frequencies would blur distant positions.
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        exponents = torch.arange(0, self.size, 2, device=like.device, dtype=dtype) / self.size
        series = 1.0 / self.base**exponents
        return series if self.scaling is None else self.scaling.build(series, self.base)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Frequencies:
        # Casts (`.bfloat16()`), moves and `.to_empty()` from the meta device all come through here.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.reset_parameters()
        return self

    def angles(self, positions: torch.Tensor) -> torch.Tensor:
        """``(...)`` positions to ``(..., size / 2)`` angles."""
        series = self.inverse_frequencies
        if self.scaling is not None:
            series = self.scaling.at_positions(series, positions)
        return positions.unsqueeze(-1) * series
