"""Differential attention (Ye et al. 2024, arXiv 2410.05258)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from insight.models.attention.base import BuildPosition
from insight.models.attention.grouped_query import GroupedQueryAttention, GroupedQueryModule
from insight.models.checks import require, require_number
from insight.models.masks import Mask
from insight.models.norms import require_eps, rms_norm


@dataclass(frozen=True)
class DifferentialAttention(GroupedQueryAttention):
    """The difference of two attentions, which cancels the weight that both give to irrelevant tokens.

    Head i of the first half of the query heads and head i of the second half read the same two value heads.
    The second result is subtracted with a learned weight, which begins at 0.8 - 0.6 exp(-0.3 layer).

    Args:
        weight_std: Standard deviation of the initial values of the four vectors that make the weight.
        norm_eps: Number added to the mean square in the norm of each pair of heads.
    """

    weight_std: float = 0.1
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        num_heads, num_value_heads = self.num_heads, self.num_key_value_heads
        problem = "differential attention pairs heads"
        require(num_heads % 2 == 0, problem, "use an even number", num_heads=num_heads)
        pairs_up = num_value_heads is None or num_value_heads == 1 or num_value_heads % 2 == 0
        problem, remedy = "differential attention pairs value heads", "use 1 or an even number"
        require(pairs_up, problem, remedy, num_key_value_heads=num_value_heads)
        require_number(0, 100, "use 0.1", low_allowed=True, weight_std=self.weight_std)
        require_eps(self.norm_eps, "norm_eps")

    @property
    def _module(self) -> type[GroupedQueryModule]:
        return DifferentialModule


class DifferentialModule(GroupedQueryModule):
    """The built form of :class:`DifferentialAttention`.

    Kernels need values as wide as keys, so each half of a value pair has a separate call.
    """

    def __init__(
        self,
        config: DifferentialAttention,
        hidden_size: int,
        build_position: BuildPosition,
        layer: int,
        encoder_size: int | None = None,
    ) -> None:
        super().__init__(config, hidden_size, build_position, layer, encoder_size)
        self.norm_eps = config.norm_eps
        self.first_weight = 0.8 - 0.6 * math.exp(-0.3 * layer)
        self.weight_query_1, self.weight_key_1, self.weight_query_2, self.weight_key_2 = (
            nn.Parameter(torch.empty(self.head_dim)) for _ in range(4)
        )
        self.weight_std = config.weight_std
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for vector in (self.weight_query_1, self.weight_key_1, self.weight_query_2, self.weight_key_2):
            nn.init.normal_(vector, std=self.weight_std)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
        halves = value.chunk(2, dim=1) if value.shape[1] > 1 else (value, value)
        repeats = (1, value.shape[1] // halves[0].shape[1], 1, 1)
        mix = super().mix
        mixed = torch.cat([mix(query, key, half.repeat(repeats), mask) for half in halves], dim=-1)
        first, second = mixed.chunk(2, dim=1)
        difference = first - self.subtracted_share().to(mixed.dtype) * second
        return (1 - self.first_weight) * rms_norm(difference, None, self.norm_eps)

    def subtracted_share(self) -> Tensor:
        """The scalar weight of the attention that is subtracted."""
        wide = torch.promote_types(self.weight_key_1.dtype, torch.float32)
        first = (self.weight_query_1.to(wide) * self.weight_key_1.to(wide)).sum().exp()
        second = (self.weight_query_2.to(wide) * self.weight_key_2.to(wide)).sum().exp()
        return first - second + self.first_weight

    def flops_per_token(self, sequence_length: int) -> int:
        return 2 * super().flops_per_token(sequence_length)
