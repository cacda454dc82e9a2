"""Retention (Sun et al. 2023, arXiv 2307.08621)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from insight.models.attention.linear.base import LinearMixer, LinearMixerModule
from insight.models.attention.linear.recurrence import Recurrence
from insight.models.norms import Norm, RMSNorm
from insight.models.positions import InterleavedRope, Position, PositionEncoding
from insight.models.positions.base import PositionTables


@dataclass(frozen=True)
class Retention(LinearMixer):
    """A state that decays at a fixed rate, 1 - 2^(-5 - i) a token in head i, over rotated queries and keys.

    Args:
        num_heads: Heads, each with a state of head_dim x value_dim numbers.
        head_dim: Channels of a query and key; ``None`` = ``hidden_size / num_heads``.
        value_dim: Channels of a value; ``None`` = ``head_dim``. The paper's are twice as many.
        norm: Normalisation of each head's output, before the gate.
        position: How queries and keys are told their positions: a rotation, or none.
    """

    norm: Norm = RMSNorm(weight=False)
    position: Position = InterleavedRope()

    @property
    def position_of_heads(self) -> Position:
        return self.position

    def build_module(self, hidden_size: int, position: PositionEncoding) -> LinearMixerModule:
        return RetentionModule(self, hidden_size, position)


class RetentionModule(LinearMixerModule):
    """The built form of :class:`Retention`."""

    def project(self, hidden: torch.Tensor, tables: PositionTables) -> torch.Tensor:
        stream = super().project(hidden, tables)
        keys = self.num_heads * self.head_dim
        rotated, values = torch.split(stream, [2 * keys, stream.shape[-1] - 2 * keys], dim=-1)
        wide = rotated.to(torch.promote_types(rotated.dtype, torch.float32))
        heads = self.position.apply_to_heads(torch.unflatten(wide, -1, (-1, self.head_dim)), tables)
        return torch.cat([heads.flatten(2), values.to(heads.dtype)], dim=-1)

    def recurrence(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, control: torch.Tensor
    ) -> Recurrence:
        # Made here and not kept: a buffer would be rounded with the weights when these become bfloat16.
        decays = [math.log1p(-(2.0 ** (-5 - head))) for head in range(self.num_heads)]
        log_decay = torch.tensor(decays, dtype=key.dtype, device=key.device)[:, None, None]
        return Recurrence(query, key, value, log_decay.expand(*key.shape[:3], 1))
