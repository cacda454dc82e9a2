"""Normalisation of the residual stream, and of queries and keys."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from insight.models.checks import require, require_flags, require_known, require_number
from insight.runtime.component import Component


@dataclass(frozen=True)
class Norm(Component):
    """A normalisation over the last dimension."""

    @abstractmethod
    def build(self, size: int) -> nn.Module:
        """Build a module ``(..., size) -> (..., size)``."""


def require_eps(eps: float, name: str = "eps") -> None:
    """Refuse an ``eps`` that would not keep a root away from zero, or would dominate it."""
    require_number(0, 1, "use 1e-6 or 1e-5", low_allowed=False, **{name: eps})


@dataclass(frozen=True)
class _EpsNorm(Norm):
    """A norm with ``eps``, and flags that say what is learned."""

    eps: float = 1e-6

    def __post_init__(self) -> None:
        require_eps(self.eps)
        require_flags(self)


@dataclass(frozen=True)
class LayerNorm(_EpsNorm):
    """Subtraction of the mean and division by the standard deviation (Ba et al. 2016, arXiv 1607.06450).

    Args:
        eps: Number added to the variance before the root.
        weight: Whether each channel has a learned factor.
        bias: Whether each channel has a learned bias; only together with ``weight``.
    """

    eps: float = 1e-5
    weight: bool = True
    bias: bool = True

    def build(self, size: int) -> nn.Module:
        return _LayerNorm(size, self.eps, elementwise_affine=self.weight, bias=self.bias)


@dataclass(frozen=True)
class OffsetLayerNorm(_EpsNorm):
    """A layer norm whose factors are one plus learned numbers, as in Nemotron (LayerNorm1P).

    The numbers begin at zero, so weight decay pulls the factors towards one.

    Args:
        eps: Number added to the variance before the root.
        bias: Whether each channel has a learned bias.
    """

    eps: float = 1e-5
    bias: bool = True

    def build(self, size: int) -> nn.Module:
        return _OffsetLayerNorm(size, self.eps, bias=self.bias)


class _LayerNorm(nn.LayerNorm):
    def forward(self, hidden: Tensor) -> Tensor:
        if self.weight is None or self.weight.dtype == hidden.dtype:
            return F.layer_norm(hidden, self.normalized_shape, self.weight, self.bias, self.eps)
        # The kernel accepts weights of another dtype than the input only for some pairs of dtypes.
        weight, bias = (None if x is None else x.to(hidden.dtype) for x in (self.weight, self.bias))
        return F.layer_norm(hidden, self.normalized_shape, weight, bias, self.eps)


class _OffsetLayerNorm(nn.LayerNorm):
    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, hidden: Tensor) -> Tensor:
        # 1 + weight is computed in float32: near one, narrow types would lose what was learned.
        wide = torch.promote_types(hidden.dtype, torch.float32)
        factors, bias = 1 + self.weight.to(wide), None if self.bias is None else self.bias.to(wide)
        return F.layer_norm(hidden.to(wide), self.normalized_shape, factors, bias, self.eps).to(hidden.dtype)


@dataclass(frozen=True)
class RMSNorm(_EpsNorm):
    """Division by the root mean square of all channels (Zhang and Sennrich 2019, arXiv 1910.07467).

    Args:
        eps: Number added to the mean square before the root.
        weight: Whether each channel has a learned factor (as in Llama).
    """

    weight: bool = True

    def build(self, size: int) -> nn.Module:
        return _RMSNorm(size, self.eps, 1.0 if self.weight else None)


@dataclass(frozen=True)
class OffsetRMSNorm(_EpsNorm):
    """x / rms(x) * (1 + weight), as in Gemma; the weight begins at zero, and decay pulls the factors to one.

    Args:
        eps: Number added to the mean square before the root.
    """

    def build(self, size: int) -> nn.Module:
        return _OffsetRMSNorm(size, self.eps, 0.0)


class _RMSNorm(nn.Module):
    """A norm of ``size`` channels whose weight begins at ``first``; ``None`` for no weight."""

    weight: nn.Parameter | None

    def __init__(self, size: int, eps: float, first: float | None) -> None:
        super().__init__()
        self.eps, self.first = eps, first
        self.register_parameter("weight", None if first is None else nn.Parameter(torch.full((size,), first)))

    def reset_parameters(self) -> None:
        if self.weight is not None and self.first is not None:
            nn.init.constant_(self.weight, self.first)

    def forward(self, hidden: Tensor) -> Tensor:
        return rms_norm(hidden, self.weight, self.eps)


class _OffsetRMSNorm(_RMSNorm):
    weight: nn.Parameter

    def forward(self, hidden: Tensor) -> Tensor:
        # Gemma multiplies in float32 and rounds once; a narrow factor near one would lose what was learned.
        wide = torch.promote_types(hidden.dtype, torch.float32)
        return rms_norm(hidden.to(wide), 1 + self.weight.to(wide), self.eps).to(hidden.dtype)


def rms_norm(hidden: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, with statistics in float32 or better.

    Args:
        hidden: ``(..., size)``.
        weight: ``(size,)`` or ``None``.
        eps: Number added to the mean square.
    """
    trains = torch.is_grad_enabled() and (
        hidden.requires_grad or (weight is not None and weight.requires_grad)
    )
    if trains and hidden.device.type == "cpu" and not torch.compiler.is_compiling():
        output: Tensor = _CPUTrainingRMSNorm.apply(hidden, weight, eps)  # type: ignore[no-untyped-call]
        return output
    return F.rms_norm(hidden, hidden.shape[-1:], None if weight is None else weight.to(hidden.dtype), eps)


class _CPUTrainingRMSNorm(torch.autograd.Function):
    """RMS norm for eager training on a CPU, where torch's own takes a dozen passes over the tensor.

    The backward uses the fused kernel of layer norm. With a mean of 0 that kernel returns
    ``(g - xhat * mean(g * xhat)) * r - mean(g) * r``, where g = gradient * weight, r = 1 / rms and
    xhat = x * r; the last term comes from the mean, which RMS norm does not subtract, and is added back.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        squares = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=wide).square_()
        inverse_rms = squares.div_(hidden.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(hidden, weight, inverse_rms)
        # Mixed dtypes would be promoted slowly, block by block.
        output: Tensor = hidden.to(wide) * inverse_rms
        if weight is not None:
            output.mul_(weight)
        return output.to(hidden.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        hidden, weight, inverse_rms = ctx.saved_tensors
        size = hidden.shape[-1]
        scale = inverse_rms.new_ones(size) if weight is None else weight.to(inverse_rms.dtype)
        needed = [*ctx.needs_input_grad[:2], False]
        wide, gradient = (x.to(inverse_rms.dtype).contiguous() for x in (hidden, gradient))
        hidden_gradient, weight_gradient, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, wide, [size], torch.zeros_like(inverse_rms), inverse_rms, scale, None, needed
        )
        if needed[0]:
            mean = (gradient @ scale).unsqueeze(-1).div_(size)
            hidden_gradient = hidden_gradient.add_(mean.mul_(inverse_rms)).to(hidden.dtype)
        if needed[1]:
            weight_gradient = weight_gradient.to(weight.dtype)
        return hidden_gradient, weight_gradient, None


@dataclass(frozen=True)
class QueryKeyNorm(Component):
    """Normalisation of queries and of keys, which keeps scores bounded (arXiv 2302.05442).

    Args:
        norm: The kind of normalisation.
        after_position: Whether it comes after the position encoding instead of before.
    """

    norm: Norm = RMSNorm()
    after_position: bool = False

    def __post_init__(self) -> None:
        require_flags(self)

    @abstractmethod
    def build(self, num_heads: int, head_dim: int) -> nn.Module:
        """Build a module that keeps the shape ``(batch, sequence, num_heads, head_dim)``."""


@dataclass(frozen=True)
class HeadNorm(QueryKeyNorm):
    """Normalisation of each head (Qwen 3; without factors and after the rotation, Llama 4).

    Args:
        own_factors: Whether each head has separate factors (Cohere, StableLM) instead of shared ones.
    """

    own_factors: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        has_factors = isinstance(self.norm, (RMSNorm, LayerNorm)) and self.norm.weight
        require(
            has_factors or not self.own_factors,
            "factors for each head need a norm with factors",
            "use RMSNorm or LayerNorm with weight=true",
            norm=self.norm,
        )

    def build(self, num_heads: int, head_dim: int) -> nn.Module:
        if self.own_factors and isinstance(self.norm, (RMSNorm, LayerNorm)):
            return _OwnFactorsNorm(self.norm, num_heads, head_dim)
        return self.norm.build(head_dim)


@dataclass(frozen=True)
class FullWidthNorm(QueryKeyNorm):
    """Normalisation of all heads together (OLMo 2)."""

    def build(self, num_heads: int, head_dim: int) -> nn.Module:
        return _FullWidthNorm(self.norm.build(num_heads * head_dim))


class _OwnFactorsNorm(nn.Module):
    """A norm of each head with factors ``(num_heads, head_dim)``, and biases where the norm has them."""

    parameter_role = "vector"  # rows of factors are neither a matrix to orthogonalise nor tokens
    bias: nn.Parameter | None

    def __init__(self, norm: RMSNorm | LayerNorm, num_heads: int, head_dim: int) -> None:
        super().__init__()
        has_bias = isinstance(norm, LayerNorm) and norm.bias
        self.norm = replace(norm, weight=False).build(head_dim)
        self.weight = nn.Parameter(torch.empty(num_heads, head_dim))
        self.register_parameter("bias", nn.Parameter(torch.empty(num_heads, head_dim)) if has_bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, heads: Tensor) -> Tensor:
        normed: Tensor = self.norm(heads) * self.weight.to(heads.dtype)
        return normed if self.bias is None else normed + self.bias.to(heads.dtype)


class _FullWidthNorm(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, heads: Tensor) -> Tensor:
        normed: Tensor = self.norm(heads.flatten(2))
        return normed.view(heads.shape)


QueryKeyNormName = Literal["none", "rms", "rms_weightless"]

_NAMED: dict[str, QueryKeyNorm | None] = {
    "none": None,
    "rms": HeadNorm(RMSNorm(eps=1e-6)),
    "rms_weightless": HeadNorm(RMSNorm(eps=1e-6, weight=False)),
}


def find_query_key_norm(choice: QueryKeyNorm | QueryKeyNormName) -> QueryKeyNorm | None:
    """Return the component of ``qk_norm``, which may be given by one of its names."""
    if isinstance(choice, QueryKeyNorm):
        return choice
    require_known("qk_norm", choice, _NAMED)
    return _NAMED[choice]
