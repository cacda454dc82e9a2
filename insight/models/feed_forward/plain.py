"""Feed-forward layers without a gate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from insight.models.checks import require_positive
from insight.models.feed_forward.activations import Activation, ActivationName, find_activation, relu_squared
from insight.models.feed_forward.base import FeedForward
from insight.models.linear import Projection


@dataclass(frozen=True)
class MLP(FeedForward):
    """down(activation(up(x))) (Vaswani et al. 2017, arXiv 1706.03762, section 3.3).

    Args:
        intermediate_size: Width between; ``None`` = 4 x hidden_size.
        activation: ``gelu``, ``gelu_tanh`` (its approximation, as in GPT-2), ``relu``, ``relu_squared`` or
            ``silu``.
        bias: Whether both maps have a bias.
    """

    intermediate_size: int | None = None
    activation: ActivationName = "gelu"
    bias: bool = False

    def __post_init__(self) -> None:
        require_positive(intermediate_size=self.intermediate_size)
        find_activation(self.activation)

    def build(self, hidden_size: int, layer: int = 0) -> nn.Module:
        width = self.intermediate_size or 4 * hidden_size
        return _PlainModule(hidden_size, width, find_activation(self.activation), self.bias)


@dataclass(frozen=True)
class ReluSquared(FeedForward):
    """down(relu(up(x))^2) (So et al. 2021, arXiv 2109.08668).

    Args:
        intermediate_size: Width between; ``None`` = 4 x hidden_size.
    """

    intermediate_size: int | None = None

    def __post_init__(self) -> None:
        require_positive(intermediate_size=self.intermediate_size)

    def build(self, hidden_size: int, layer: int = 0) -> nn.Module:
        return _PlainModule(hidden_size, self.intermediate_size or 4 * hidden_size, relu_squared)


class _PlainModule(nn.Module):
    def __init__(
        self, hidden_size: int, intermediate_size: int, activation: Activation, bias: bool = False
    ) -> None:
        super().__init__()
        self.activation = activation
        self.up = Projection(hidden_size, [intermediate_size], bias=bias)
        self.down = Projection(intermediate_size, [hidden_size], bias=bias, writes_residual=True)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.down(self.activation(self.up(hidden)))
        return output
