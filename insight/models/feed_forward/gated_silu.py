"""silu(gate) * up with one gradient for both halves."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable


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
