"""Feed-forward layers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from insight.models.checks import require_positive
from insight.models.linear import Projection
from insight.runtime.component import Component


@dataclass(frozen=True)
class FeedForward(Component):
    """A map of each token by itself."""

    @abstractmethod
    def build(self, hidden_size: int) -> nn.Module:
        """A module ``(..., hidden_size) -> (..., hidden_size)``."""


@dataclass(frozen=True)
class SwiGLU(FeedForward):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv 2002.05202).

    Args:
        intermediate_size: Width between; ``None`` = 8/3 of hidden_size, rounded up to a multiple of 64.
    """

    intermediate_size: int | None = None

    def __post_init__(self) -> None:
        require_positive(intermediate_size=self.intermediate_size)

    def build(self, hidden_size: int) -> nn.Module:
        return _SwiGLUModule(hidden_size, self.intermediate_size or -(-hidden_size * 8 // (3 * 64)) * 64)


@dataclass(frozen=True)
class ReluSquared(FeedForward):
    """down(relu(up(x))^2) (So et al. 2021, arXiv 2109.08668).

    Args:
        intermediate_size: Width between; ``None`` = 4 x hidden_size.
    """

    intermediate_size: int | None = None

    def __post_init__(self) -> None:
        require_positive(intermediate_size=self.intermediate_size)

    def build(self, hidden_size: int) -> nn.Module:
        return _ReluSquaredModule(hidden_size, self.intermediate_size or 4 * hidden_size)


class _SwiGLUModule(nn.Module):
    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up = Projection(hidden_size, [intermediate_size, intermediate_size])
        self.down = Projection(intermediate_size, [hidden_size], writes_residual=True)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.down(gated_silu(self.gate_up(hidden)))
        return output


def gated_silu(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up of the two halves of ``(..., 2 * size)``."""
    if torch.compiler.is_compiling():  # the compiler fuses the plain formula better than written passes
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up
    gated: torch.Tensor = _GatedSilu.apply(gate_up)  # type: ignore[no-untyped-call]
    return gated


class _GatedSilu(torch.autograd.Function):
    """Writes the gradients of both halves into one tensor; autograd's would need a further pass to join."""

    @staticmethod
    def forward(ctx: Any, gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        activated = F.silu(gate)
        ctx.save_for_backward(gate_up, activated)
        return activated * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        gate_up, activated = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        joined = torch.empty_like(gate_up)
        gate_gradient, up_gradient = joined.chunk(2, dim=-1)
        torch.mul(gradient, activated, out=up_gradient)
        torch.mul(gradient, up, out=gate_gradient)
        torch.ops.aten.silu_backward.grad_input(gate_gradient, gate, grad_input=gate_gradient)
        return joined


class _ReluSquaredModule(nn.Module):
    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.up = Projection(hidden_size, [intermediate_size])
        self.down = Projection(intermediate_size, [hidden_size], writes_residual=True)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.down(F.relu(self.up(hidden)).square())
        return output
