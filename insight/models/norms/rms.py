"""Division by the root mean square (Zhang and Sennrich 2019, arXiv 1910.07467)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from insight.models.norms.base import Norm, require_eps


@dataclass(frozen=True)
class RMSNorm(Norm):
    """Division by the root mean square of all channels.

    Args:
        eps: Added to the mean square before the root.
        weight: Whether each channel has a learned factor (as in Llama) or none.
    """

    eps: float = 1e-6
    weight: bool = True

    def __post_init__(self) -> None:
        require_eps(self.eps)

    def build(self, size: int) -> nn.Module:
        return RMSNormModule(size, self.eps, self.weight)


class RMSNormModule(nn.Module):
    """The built form of :class:`RMSNorm`.

    Args:
        size: Channels.
        eps: Added to the mean square.
        weight: Whether there is a learned factor a channel.
    """

    weight: nn.Parameter | None

    def __init__(self, size: int, eps: float, weight: bool) -> None:
        super().__init__()
        self.size = size
        self.eps = eps
        self.register_parameter("weight", nn.Parameter(torch.ones(size)) if weight else None)

    def reset_parameters(self) -> None:
        """Factors of one."""
        if self.weight is not None:
            nn.init.ones_(self.weight)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """``(..., size)`` to the same shape and dtype."""
        return rms_norm(hidden, self.weight, self.eps)


def rms_norm(hidden: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, statistics in float32 or better.

    Args:
        hidden: ``(..., size)``.
        weight: ``(size,)`` or ``None``.
        eps: Added to the mean square.
    """
    trains = torch.is_grad_enabled() and (
        hidden.requires_grad or (weight is not None and weight.requires_grad)
    )
    if trains and hidden.device.type == "cpu" and not torch.compiler.is_compiling():
        output: torch.Tensor = _CPUTrainingRMSNorm.apply(hidden, weight, eps)  # type: ignore[no-untyped-call]
        return output
    return F.rms_norm(hidden, hidden.shape[-1:], None if weight is None else weight.to(hidden.dtype), eps)


class _CPUTrainingRMSNorm(torch.autograd.Function):
    """RMS norm for training in eager mode on a CPU, where torch's is a chain of a dozen whole passes.

    The backward borrows the fused kernel of layer norm. With its mean set to 0 that kernel returns
    ``(g - xhat * mean(g * xhat)) * r - mean(g) * r``, where g = gradient * weight, r = 1 / rms and
    xhat = x * r; the last term belongs to the mean that RMS norm does not subtract and is added back.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        squares = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=wide).square_()
        inverse_rms = squares.div_(hidden.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(hidden, weight, inverse_rms)
        output: torch.Tensor = (
            hidden.to(wide) * inverse_rms
        )  # mixed dtypes would promote slowly, a block at a time
        if weight is not None:
            output.mul_(weight)
        return output.to(hidden.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        hidden, weight, inverse_rms = ctx.saved_tensors
        size = hidden.shape[-1]
        scale = inverse_rms.new_ones(size) if weight is None else weight.to(inverse_rms.dtype)
        needed = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False]
        wide, gradient = hidden.to(inverse_rms.dtype), gradient.to(inverse_rms.dtype).contiguous()
        hidden_gradient, weight_gradient, _ = torch.ops.aten.native_layer_norm_backward(
            gradient,
            wide.contiguous(),
            [size],
            torch.zeros_like(inverse_rms),
            inverse_rms,
            scale,
            None,
            needed,
        )
        if needed[0]:
            mean = (gradient @ scale).unsqueeze(-1).div_(size)
            hidden_gradient = hidden_gradient.add_(mean.mul_(inverse_rms)).to(hidden.dtype)
        if needed[1]:
            weight_gradient = weight_gradient.to(weight.dtype)
        return hidden_gradient, weight_gradient, None
