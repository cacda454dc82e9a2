"""Gated linear attention (Yang et al. 2023, arXiv 2312.06635)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from insight.models.attention.linear.base import LinearMixer, LinearMixerModule
from insight.models.attention.linear.recurrence import Recurrence
from insight.models.checks import require_positive
from insight.models.linear import Projection
from insight.models.positions import PositionEncoding
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class GatedLinearAttention(LinearMixer):
    """A state of which the token decides, for each key channel, how much decays.

    The paper's keys have half the channels of its values.

    Args:
        num_heads: Heads, each with a state of head_dim x value_dim numbers.
        head_dim: Channels of a query and key; ``None`` = ``hidden_size / num_heads``.
        value_dim: Channels of a value; ``None`` = ``head_dim``.
        norm: Normalisation of each head's output, before the gate.
        decay_size: Channels of the vector that a token's decays are made from.
        decay_root: Decays are this root of a sigmoid: the higher, the longer a state lasts.
    """

    decay_size: int = 16
    decay_root: float = 16.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(decay_size=self.decay_size)
        if not 0 < self.decay_root < float("inf"):
            raise ConfigError(f"decay_root={self.decay_root}: decay_root must be above 0", "use 16")

    def build_module(self, hidden_size: int, position: PositionEncoding) -> LinearMixerModule:
        return GatedLinearAttentionModule(self, hidden_size, position)


class GatedLinearAttentionModule(LinearMixerModule):
    """The built form of :class:`GatedLinearAttention`."""

    decays_channels = True

    def __init__(self, config: GatedLinearAttention, hidden_size: int, position: PositionEncoding) -> None:
        super().__init__(config, hidden_size, position)
        self.decay_root = config.decay_root
        self.decay_latent = Projection(hidden_size, [config.decay_size])
        self.decay = Projection(config.decay_size, [self.num_heads * self.head_dim], bias=True)

    def control(self, hidden: torch.Tensor) -> torch.Tensor:
        control: torch.Tensor = self.decay(self.decay_latent(hidden))
        return control

    def recurrence(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, control: torch.Tensor
    ) -> Recurrence:
        scores = torch.unflatten(control, -1, (self.num_heads, self.head_dim)).transpose(1, 2)
        return Recurrence(query, key, value, F.logsigmoid(scores) / self.decay_root)
