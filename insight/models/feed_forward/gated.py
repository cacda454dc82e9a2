"""Gated feed-forward layers (Shazeer 2020, arXiv 2002.05202)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from insight.models.checks import require_positive
from insight.models.feed_forward.activations import Activation, gelu_tanh
from insight.models.feed_forward.base import FeedForward
from insight.models.feed_forward.gated_silu import gated_silu
from insight.models.linear import Projection


@dataclass(frozen=True)
class SwiGLU(FeedForward):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv 2002.05202).

    Args:
        intermediate_size: Width between; ``None`` = 8/3 of hidden_size, rounded up to a multiple of 64.
    """

    intermediate_size: int | None = None

    def __post_init__(self) -> None:
        require_positive(intermediate_size=self.intermediate_size)

    def build(self, hidden_size: int, layer: int = 0) -> nn.Module:
        return GatedModule(hidden_size, self.intermediate_size or default_width(hidden_size), gated_silu)


@dataclass(frozen=True)
class GeGLU(FeedForward):
    """down(gelu(gate(x)) * up(x)) with GELU by its tanh approximation (T5 1.1, Gemma).

    Args:
        intermediate_size: Width between; ``None`` = 8/3 of hidden_size, rounded up to a multiple of 64.
    """

    intermediate_size: int | None = None

    def __post_init__(self) -> None:
        require_positive(intermediate_size=self.intermediate_size)

    def build(self, hidden_size: int, layer: int = 0) -> nn.Module:
        return GatedModule(hidden_size, self.intermediate_size or default_width(hidden_size), gated_gelu)


def gated_gelu(gate_up: torch.Tensor) -> torch.Tensor:
    """gelu(gate) * up of the two halves of ``(..., 2 * size)``."""
    gate, up = gate_up.chunk(2, dim=-1)
    return gelu_tanh(gate) * up


def default_width(hidden_size: int) -> int:
    """8/3 of hidden_size, rounded up to a multiple of 64, so that three matrices cost what two would."""
    return -(-hidden_size * 8 // (3 * 64)) * 64


class GatedModule(nn.Module):
    """The built form of a gated layer.

    Args:
        hidden_size: Size of the residual stream.
        intermediate_size: Width between.
        gated: ``(..., 2 * intermediate_size)``, gate and up, to ``(..., intermediate_size)``.
        bias: Whether both maps have a bias.
    """

    def __init__(
        self, hidden_size: int, intermediate_size: int, gated: Activation, bias: bool = False
    ) -> None:
        super().__init__()
        self.gated = gated
        self.gate_up = Projection(hidden_size, [intermediate_size, intermediate_size], bias=bias)
        self.down = Projection(intermediate_size, [hidden_size], bias=bias, writes_residual=True)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.down(self.gated(self.gate_up(hidden)))
        return output
