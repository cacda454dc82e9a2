"""Feed-forward layers that every token passes through, plain or gated, and patterns of layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from insight.models.checks import require, require_flags, require_known, require_positive
from insight.models.linear import Projection
from insight.runtime.component import Component

ActivationName = Literal["gelu", "gelu_tanh", "relu", "relu_squared", "silu"]
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FeedForward(Component):
    """A map of each token, independent of the others."""

    @abstractmethod
    def build(self, hidden_size: int, layer: int = 0) -> nn.Module:
        """Build a module ``(..., hidden_size) -> (..., hidden_size)`` for layer number ``layer``, from 0.

        A module with the attribute ``counts_tokens = True`` is called with ``CallContext.real_tokens`` as a
        second argument.
        """


@dataclass(frozen=True)
class FeedForwardPattern(FeedForward):
    """``first`` in the first blocks, then ``layers`` in turn, as for dense blocks below mixtures of experts.

    Args:
        layers: Feed-forward layers of the blocks after ``first``; the pattern repeats.
        first: Feed-forward layers of the first blocks, which do not repeat.
    """

    layers: tuple[FeedForward, ...] = ()
    first: tuple[FeedForward, ...] = ()

    def __post_init__(self) -> None:
        problem = "a pattern has at least one feed-forward layer that repeats"
        require(bool(self.layers), problem, "list them in turn", layers="()")

    def build(self, hidden_size: int, layer: int = 0) -> nn.Module:
        place = layer - len(self.first)
        chosen = self.first[layer] if place < 0 else self.layers[place % len(self.layers)]
        return chosen.build(hidden_size, layer)


@dataclass(frozen=True)
class MLP(FeedForward):
    """down(activation(up(x))) (Vaswani et al. 2017, arXiv 1706.03762, section 3.3).

    Args:
        intermediate_size: Width of the hidden layer; ``None`` = 4 x hidden_size.
        activation: ``gelu``, ``gelu_tanh`` (its approximation, as in GPT-2), ``relu``, ``relu_squared`` or
            ``silu``.
        bias: Whether both maps have a bias.
    """

    intermediate_size: int | None = None
    activation: ActivationName = "gelu"
    bias: bool = False

    def __post_init__(self) -> None:
        require_positive(intermediate_size=self.intermediate_size)
        require_flags(self)
        require_known("activation", self.activation, _ACTIVATIONS)

    def build(self, hidden_size: int, layer: int = 0) -> nn.Module:
        width = self.intermediate_size or 4 * hidden_size
        return _PlainModule(hidden_size, width, _ACTIVATIONS[self.activation], self.bias)


@dataclass(frozen=True)
class ReluSquared(FeedForward):
    """down(relu(up(x))^2) (So et al. 2021, arXiv 2109.08668).

    Args:
        intermediate_size: Width of the hidden layer; ``None`` = 4 x hidden_size.
    """

    intermediate_size: int | None = None

    def __post_init__(self) -> None:
        require_positive(intermediate_size=self.intermediate_size)

    def build(self, hidden_size: int, layer: int = 0) -> nn.Module:
        return MLP(self.intermediate_size, "relu_squared").build(hidden_size)


class _PlainModule(nn.Module):
    def __init__(self, hidden_size: int, width: int, activation: Activation, bias: bool) -> None:
        super().__init__()
        self.activation = activation
        self.up = Projection(hidden_size, [width], bias=bias)
        self.down = Projection(width, [hidden_size], bias=bias, writes_residual=True)

    def forward(self, hidden: Tensor) -> Tensor:
        output: Tensor = self.down(self.activation(self.up(hidden)))
        return output


@dataclass(frozen=True)
class _Gated(FeedForward):
    """A gated layer, whose gate passes through GELU or SiLU.

    Args:
        intermediate_size: Width of the hidden layer; ``None`` = 8/3 of hidden_size, rounded up to a multiple
            of 64.
        bias: Whether the maps have a bias.
    """

    intermediate_size: int | None = None
    bias: bool = False
    gelu: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_positive(intermediate_size=self.intermediate_size)
        require_flags(self)

    def build(self, hidden_size: int, layer: int = 0) -> nn.Module:
        width = self.intermediate_size or default_width(hidden_size)
        return GatedModule(hidden_size, width, gated_gelu if self.gelu else gated_silu, self.bias)


@dataclass(frozen=True)
class SwiGLU(_Gated):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv 2002.05202)."""


@dataclass(frozen=True)
class GeGLU(_Gated):
    """down(gelu(gate(x)) * up(x)) with the tanh approximation of GELU (T5 1.1, Gemma)."""

    gelu = True


class GatedModule(nn.Module):
    """The built form of a gated layer; ``gated`` maps gate and up, ``2 * width`` channels, to ``width``."""

    def __init__(self, hidden_size: int, width: int, gated: Activation, bias: bool) -> None:
        super().__init__()
        self.gated = gated
        self.gate_up = Projection(hidden_size, [width, width], bias=bias)
        self.down = Projection(width, [hidden_size], bias=bias, writes_residual=True)

    def forward(self, hidden: Tensor) -> Tensor:
        output: Tensor = self.down(self.gated(self.gate_up(hidden)))
        return output


def default_width(hidden_size: int) -> int:
    """8/3 of hidden_size, rounded up to a multiple of 64, so that three matrices cost as much as two."""
    return -(-hidden_size * 8 // (3 * 64)) * 64


def gelu_tanh(values: Tensor) -> Tensor:
    """GELU in its tanh approximation, with which GPT-2 and Gemma were trained (arXiv 1606.08415)."""
    return F.gelu(values, approximate="tanh")


def relu_squared(values: Tensor) -> Tensor:
    """relu(x)^2 (So et al. 2021, arXiv 2109.08668)."""
    return F.relu(values).square()


_ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": F.relu,
    "relu_squared": relu_squared,
    "silu": F.silu,
}


def gated_gelu(gate_up: Tensor) -> Tensor:
    """gelu(gate) * up of the two halves of ``(..., 2 * size)``."""
    gate, up = gate_up.chunk(2, dim=-1)
    return gelu_tanh(gate) * up


def gated_silu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of the two halves of ``(..., 2 * size)``."""
    if torch.compiler.is_compiling():  # the compiler fuses the plain formula better than separate passes
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up
    gated: Tensor = _GatedSilu.apply(gate_up)  # type: ignore[no-untyped-call]
    return gated


class _GatedSilu(torch.autograd.Function):
    """Writes the gradients of both halves into one tensor; autograd would need another pass to join them."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        activated = F.silu(gate)
        ctx.save_for_backward(gate_up, activated)
        return activated * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gate_up, activated = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        joined = torch.empty_like(gate_up)
        gate_gradient, up_gradient = joined.chunk(2, dim=-1)
        torch.mul(gradient, activated, out=up_gradient)
        torch.mul(gradient, up, out=gate_gradient)
        torch.ops.aten.silu_backward.grad_input(gate_gradient, gate, grad_input=gate_gradient)
        return joined
