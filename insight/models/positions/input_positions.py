"""Positions that are added to the token embedding once, before the first block."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from insight.models.checks import require, require_flags, require_number
from insight.models.positions.rope import Frequencies
from insight.runtime.component import Component


@dataclass(frozen=True)
class InputPosition(Component):
    """Positions that are added to the token embedding as vectors."""

    @abstractmethod
    def build(self, hidden_size: int, max_sequence_length: int) -> InputPositionModule:
        """Build the module that makes the vectors, or refuse a ``hidden_size`` that does not fit."""


class InputPositionModule(nn.Module):
    """The built form of an :class:`InputPosition`; ``num_positions=None`` means that there is no limit."""

    num_positions: int | None = None

    def forward(self, positions: Tensor) -> Tensor:
        """Map int64 ``(...)`` to ``(..., hidden_size)``."""
        raise NotImplementedError


@dataclass(frozen=True)
class LearnedPosition(InputPosition):
    """A table with one learned row for each position, up to ``max_sequence_length`` (as in GPT-2).

    Args:
        std: Standard deviation of the initial values.
    """

    std: float = 0.02

    def __post_init__(self) -> None:
        require_number(0, 100, "use 0.02", low_allowed=True, std=self.std)

    def build(self, hidden_size: int, max_sequence_length: int) -> InputPositionModule:
        return _LearnedPositions(max_sequence_length, hidden_size, self.std)


@dataclass(frozen=True)
class SinusoidalPosition(InputPosition):
    """Sines and cosines of the position (Vaswani et al. 2017, arXiv 1706.03762, section 3.5).

    Args:
        base: Base of the wavelengths, which run from 2π to 2π · base tokens.
        in_turn: Whether a sine and its cosine are neighbours, as in the paper; otherwise all sines come first
            (Marian).
    """

    base: float = 10000.0
    in_turn: bool = True

    def __post_init__(self) -> None:
        require_number(1, 1e15, "use 10000", base=self.base)
        require_flags(self)

    def build(self, hidden_size: int, max_sequence_length: int) -> InputPositionModule:
        problem = "sines and cosines come in pairs, so it must be even"
        remedy = f"use hidden_size={hidden_size + 1}"
        require(hidden_size % 2 == 0, problem, remedy, hidden_size=hidden_size)
        return _SinusoidalPositions(hidden_size, self.base, self.in_turn)


class _LearnedPositions(InputPositionModule):
    parameter_role = "vector"

    def __init__(self, num_positions: int, hidden_size: int, std: float) -> None:
        super().__init__()
        self.num_positions = num_positions
        self.weight = nn.Parameter(torch.empty(num_positions, hidden_size))
        self.std = std
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.std)

    def forward(self, positions: Tensor) -> Tensor:
        return nn.functional.embedding(positions, self.weight)


class _SinusoidalPositions(InputPositionModule):
    def __init__(self, hidden_size: int, base: float, in_turn: bool) -> None:
        super().__init__()
        self.in_turn = in_turn
        self.frequencies = Frequencies(hidden_size, base)

    def forward(self, positions: Tensor) -> Tensor:
        angles = self.frequencies.angles(positions)
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1)
        return (waves if self.in_turn else waves.mT).flatten(-2)
