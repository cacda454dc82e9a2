"""Mixtures of experts (Shazeer et al. 2017, arXiv 1701.06538)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from insight.models.checks import divisors, require_positive
from insight.models.feed_forward.dense import Activation, FeedForward, GatedModule, default_width, gated_silu
from insight.models.feed_forward.routing import BalanceLoss, Router, RouterBalance, Score
from insight.models.linear import StackedProjection
from insight.runtime.errors import ConfigError, nearest

_CLAMP, _SLOPE = 7.0, 1.702


def clamped_gate(gate_up: torch.Tensor) -> torch.Tensor:
    """(up + 1) * gate * sigmoid(1.702 gate), gate at most 7 and up within 7 of zero (gpt-oss)."""
    gate, up = gate_up.chunk(2, dim=-1)
    gate, up = gate.clamp(max=_CLAMP), up.clamp(-_CLAMP, _CLAMP)
    return (up + 1) * gate * torch.sigmoid(_SLOPE * gate)


_GATES: dict[str, Activation] = {"silu": gated_silu, "clamped": clamped_gate}


@dataclass(frozen=True)
class MixtureOfExperts(FeedForward):
    """Gated layers side by side, of which each token passes through the few that a router chooses for it.

    Shared experts and the sigmoid: DeepSeek-AI 2024, arXiv 2401.06066 and 2412.19437. A softmax over the
    chosen experts alone (Mixtral, gpt-oss) is the softmax over all with normalised weights. No token is ever
    dropped.

    Args:
        num_experts: Experts among which the router chooses.
        num_experts_per_token: How many each token passes through.
        intermediate_size: Width of one expert; ``None`` = about that of SwiGLU, divided among the experts
            that a token passes through.
        num_shared_experts: Experts that every token passes through besides; they are built as one wide layer.
        gate: What is done with the two products of an expert: ``silu`` as in SwiGLU, or ``clamped`` as in
            gpt-oss.
        expert_bias: Whether the experts' maps have biases.
        score: How the router scores experts: ``softmax`` over all, or a ``sigmoid`` for each.
        normalized_weights: Whether the weights of a token's experts are divided by their sum.
        weight_scale: Factor of these weights.
        num_groups: Groups of equally many experts.
        num_groups_per_token: Groups from which a token's experts are taken.
        router_bias: Whether the router's scores have a learned bias.
        balance: What spreads tokens over experts in training: ``BalanceLoss``, ``BalanceBias``, or null.
    """

    num_experts: int = 8
    num_experts_per_token: int = 2
    intermediate_size: int | None = None
    num_shared_experts: int = 0
    gate: Literal["silu", "clamped"] = "silu"
    expert_bias: bool = False
    score: Score = "softmax"
    normalized_weights: bool = True
    weight_scale: float = 1.0
    num_groups: int = 1
    num_groups_per_token: int = 1
    router_bias: bool = False
    balance: RouterBalance | None = BalanceLoss()

    def __post_init__(self) -> None:
        require_positive(
            num_experts=self.num_experts,
            num_experts_per_token=self.num_experts_per_token,
            intermediate_size=self.intermediate_size,
            num_groups=self.num_groups,
            num_groups_per_token=self.num_groups_per_token,
        )
        for name, value, known in (
            ("gate", self.gate, tuple(_GATES)),
            ("score", self.score, ("softmax", "sigmoid")),
        ):
            if value not in known:
                match = nearest(str(value), known)
                raise ConfigError(
                    f"{name}={value!r} is unknown",
                    f"did you mean {match!r}?" if match else f"use {' or '.join(known)}",
                )
        if self.num_shared_experts < 0:
            raise ConfigError(
                f"num_shared_experts={self.num_shared_experts}: must not be negative", "use 0 for none"
            )
        if not 0 < self.weight_scale < 1e4:
            raise ConfigError(f"weight_scale={self.weight_scale}: must be above 0", "use 1")
        self._check_choice()

    def _check_choice(self) -> None:
        if self.num_experts_per_token > self.num_experts:
            raise ConfigError(
                f"num_experts={self.num_experts}, num_experts_per_token={self.num_experts_per_token}: "
                "a token cannot pass through more experts than there are",
                f"use num_experts_per_token={self.num_experts} or less",
            )
        if self.num_experts_per_token == 1 and self.normalized_weights:
            raise ConfigError(
                "num_experts_per_token=1, normalized_weights=true: the weight of a single expert would "
                "always be 1, and the router would not learn from the text",
                "use normalized_weights=false (as in Switch) or 2 experts a token",
            )
        if self.num_experts % self.num_groups:
            raise ConfigError(
                f"num_experts={self.num_experts}, num_groups={self.num_groups}: num_groups must divide "
                "num_experts",
                f"use {divisors(self.num_experts)}",
            )
        if self.num_groups_per_token > self.num_groups:
            raise ConfigError(
                f"num_groups={self.num_groups}, num_groups_per_token={self.num_groups_per_token}: "
                "there are not so many groups",
                f"use num_groups_per_token={self.num_groups} or less",
            )
        reachable = self.num_experts // self.num_groups * self.num_groups_per_token
        if self.num_experts_per_token > reachable:
            raise ConfigError(
                f"num_experts_per_token={self.num_experts_per_token}, num_groups_per_token="
                f"{self.num_groups_per_token}: the groups of a token hold {reachable} experts",
                f"use num_experts_per_token={reachable} or less, or more groups a token",
            )

    def build(self, hidden_size: int, layer: int = 0) -> nn.Module:
        return MixtureModule(self, hidden_size, self.intermediate_size or self._default_width(hidden_size))

    def _default_width(self, hidden_size: int) -> int:
        num_used = self.num_experts_per_token + self.num_shared_experts
        return -(-default_width(hidden_size) // (num_used * 16)) * 16


class MixtureModule(nn.Module):
    """The built form of :class:`MixtureOfExperts`.

    Tokens are copied once for each of their experts and sorted by expert, so that one product serves all the
    tokens of an expert.

    Attributes:
        router: Chooses.
        shared: What every token passes through, or ``None``.
    """

    def __init__(self, config: MixtureOfExperts, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.num_experts = config.num_experts
        self.gated = _GATES[config.gate]
        self.router = Router(
            hidden_size,
            config.num_experts,
            config.num_experts_per_token,
            score=config.score,
            normalized_weights=config.normalized_weights,
            weight_scale=config.weight_scale,
            num_groups=config.num_groups,
            num_groups_per_token=config.num_groups_per_token,
            bias=config.router_bias,
            balance=config.balance,
        )
        numbers = config.num_experts, config.num_experts_per_token
        splits, bias = [intermediate_size, intermediate_size], config.expert_bias
        self.expert_gate_up = StackedProjection(*numbers, hidden_size, splits, bias=bias)
        self.expert_down = StackedProjection(
            *numbers, intermediate_size, [hidden_size], bias=bias, writes_residual=True
        )
        width = config.num_shared_experts * intermediate_size
        self.shared = GatedModule(hidden_size, width, self.gated, bias) if width else None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        tokens = hidden.reshape(-1, hidden.shape[-1])
        experts, weights = self.router(tokens)
        mixed = self._mix(tokens, experts, weights)
        if self.shared is not None:
            mixed = mixed + self.shared(tokens)
        return mixed.view(hidden.shape)

    def _mix(self, tokens: torch.Tensor, experts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        num_chosen = experts.shape[1]
        owners, order = experts.flatten().sort(stable=True)
        ranks = order.argsort()
        ends = torch.searchsorted(owners, torch.arange(self.num_experts, device=owners.device), right=True)
        rows = _gather(tokens, order, ranks, num_chosen)
        rows = self.expert_down(self.gated(self.expert_gate_up(rows, owners, ends)), owners, ends)
        outputs = _gather(rows, ranks, order, 1).view(*experts.shape, -1)
        return torch.sum(outputs * weights.unsqueeze(-1).to(outputs.dtype), dim=1)


def _gather(rows: torch.Tensor, order: torch.Tensor, ranks: torch.Tensor, copies: int) -> torch.Tensor:
    """``copies`` of each row, in an order.

    Args:
        rows: ``(rows, channels)``.
        order: int64 ``(rows * copies,)``: copy ``order[i]`` comes to place i.
        ranks: Its inverse.
        copies: How many; copies of one row follow one another.
    """
    gathered: torch.Tensor = _Gather.apply(rows, order, ranks, copies)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """The gradient of a permutation is a gather too; autograd would add row by row, on CUDA in any order."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, order: torch.Tensor, ranks: torch.Tensor, copies: int
    ) -> torch.Tensor:
        ctx.save_for_backward(ranks)
        ctx.copies = copies
        return rows.index_select(0, order if copies == 1 else order // copies)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (ranks,) = ctx.saved_tensors
        sorted_back = gradient.index_select(0, ranks)
        if ctx.copies > 1:
            sorted_back = sorted_back.view(-1, ctx.copies, sorted_back.shape[1]).sum(dim=1)
        return sorted_back, None, None, None
