"""Gated delta net (Yang et al. 2024, arXiv 2412.06464)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from insight.models.attention.linear.base import LinearMixer, LinearMixerModule
from insight.models.attention.linear.recurrence import Recurrence
from insight.models.checks import divisors, require_positive
from insight.models.linear import Projection
from insight.models.norms import rms_norm
from insight.models.positions import PositionEncoding
from insight.runtime.errors import ConfigError

_NORM_EPS = 1e-6
_STEPS = (0.001, 0.1)


@dataclass(frozen=True)
class GatedDeltaNet(LinearMixer):
    """A state that tokens correct: each takes back what its key stood for and stores its value instead.

    The token decides how strongly, and how much of the whole state decays. As in Qwen 3 Next queries, keys
    and values pass a short convolution, and queries and keys have length 1.

    Args:
        num_heads: Heads, each with a state of head_dim x value_dim numbers.
        head_dim: Channels of a query and key; ``None`` = ``hidden_size / num_heads``.
        value_dim: Channels of a value; ``None`` = ``head_dim``.
        norm: Normalisation of each head's output, before the gate.
        num_key_heads: Heads of queries and keys, which must divide num_heads; ``None`` = ``num_heads``.
        convolution_width: Tokens that the convolution sees, the token's own included.
    """

    num_key_heads: int | None = None
    convolution_width: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(num_key_heads=self.num_key_heads, convolution_width=self.convolution_width)
        if self.num_key_heads is not None and self.num_heads % self.num_key_heads:
            raise ConfigError(
                f"num_heads={self.num_heads}, num_key_heads={self.num_key_heads}: num_key_heads must divide "
                "num_heads",
                f"use {divisors(self.num_heads)}",
            )

    def build_module(self, hidden_size: int, position: PositionEncoding) -> LinearMixerModule:
        return GatedDeltaNetModule(self, hidden_size, position)


class GatedDeltaNetModule(LinearMixerModule):
    """The built form of :class:`GatedDeltaNet`.

    A head decays by exp(-rate * softplus(step + step_bias)): the step is made from the token, rate and bias
    are learned.
    """

    delta_rule = True

    def __init__(self, config: GatedDeltaNet, hidden_size: int, position: PositionEncoding) -> None:
        super().__init__(config, hidden_size, position, config.num_key_heads, config.convolution_width)
        self.strength_step = Projection(hidden_size, [self.num_heads, self.num_heads])
        self.log_rate = nn.Parameter(torch.empty(self.num_heads))
        self.step_bias = nn.Parameter(torch.empty(self.num_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Rates up to 16 and steps between 0.001 and 0.1, as in Mamba 2 (arXiv 2405.21060)."""
        with torch.no_grad():
            self.log_rate.uniform_(0, 16).clamp_min_(1e-3).log_()
            steps = self.step_bias.uniform_(*(math.log(step) for step in _STEPS)).exp_()
            steps.copy_(steps + torch.log(-torch.expm1(-steps)))  # what softplus makes them of

    def control(self, hidden: torch.Tensor) -> torch.Tensor:
        control: torch.Tensor = self.strength_step(hidden)
        return control

    def recurrence(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, control: torch.Tensor
    ) -> Recurrence:
        strength, step = control.transpose(1, 2).unsqueeze(-1).chunk(2, dim=1)
        rate, bias = (vector.to(control.dtype)[:, None, None] for vector in (self.log_rate, self.step_bias))
        log_decay = -rate.exp() * F.softplus(step + bias)
        return Recurrence(_unit(query), _unit(key), value, log_decay, torch.sigmoid(strength))


def _unit(heads: torch.Tensor) -> torch.Tensor:
    """x / sqrt(sum(x^2) + eps) over the last dimension."""
    size = heads.shape[-1]
    unit: torch.Tensor = rms_norm(heads, None, _NORM_EPS / size) * size**-0.5
    return unit
