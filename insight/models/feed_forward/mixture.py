"""Mixtures of experts (Shazeer et al. 2017, arXiv 1701.06538)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from insight.models.checks import (
    LARGEST_COUNT,
    require_divisor,
    require_flags,
    require_known,
    require_number,
    require_positive,
)
from insight.models.feed_forward.dense import Activation, FeedForward, GatedModule, default_width, gated_silu
from insight.models.feed_forward.routing import BalanceLoss, Router, RouterBalance, RouterProjection, Score
from insight.models.linear import StackedProjection
from insight.runtime.errors import ConfigError

_CLAMP, _SLOPE = 7.0, 1.702


def clamped_gate(gate_up: torch.Tensor) -> torch.Tensor:
    """(up + 1) * gate * sigmoid(1.702 gate), gate at most 7 and up within 7 of zero (gpt-oss)."""
    gate, up = gate_up.chunk(2, dim=-1)
    gate, up = gate.clamp(max=_CLAMP), up.clamp(-_CLAMP, _CLAMP)
    return (up + 1) * gate * torch.sigmoid(_SLOPE * gate)


_GATES: dict[str, Activation] = {"silu": gated_silu, "clamped": clamped_gate}


@dataclass(frozen=True)
class MixtureOfExperts(FeedForward):
    """Gated layers side by side, of which a router chooses a few for each token.

    Shared experts and the sigmoid: DeepSeek-AI 2024, arXiv 2401.06066 and 2412.19437. A softmax over the
    chosen experts alone (Mixtral, gpt-oss) equals the softmax over all with normalised weights. No token is
    ever dropped.

    Args:
        num_experts: Experts among which the router chooses.
        num_experts_per_token: Experts that each token passes through. With one expert and
            ``normalized_weights`` its weight is always 1, so that only ``balance`` trains the router.
        intermediate_size: Width of one expert; ``None`` = about that of SwiGLU, divided among the experts
            of a token.
        num_shared_experts: Further experts that every token passes through, built as one wide layer.
        gate: Function that joins the two products of an expert: ``silu`` as in SwiGLU, or ``clamped`` as in
            gpt-oss.
        expert_bias: Whether the experts' maps have biases.
        score: Scores of the router: ``softmax`` over all experts, or a ``sigmoid`` for each.
        normalized_weights: Whether the weights of a token's experts are divided by their sum.
        weight_scale: Factor of these weights.
        num_groups: Number of equally large groups of experts.
        num_groups_per_token: Number of groups from which a token's experts are taken.
        router_bias: Whether the router's scores have a learned bias.
        balance: The rule that spreads tokens over experts in training: ``BalanceLoss``, ``BalanceBias``, or
            null.
        shared_gate: Whether a sigmoid of the token multiplies the shared experts (Qwen 2 MoE).
        weighted_inputs: Whether an expert's input is multiplied by its weight, instead of its output
            (Llama 4).
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
    shared_gate: bool = False
    weighted_inputs: bool = False

    def __post_init__(self) -> None:
        require_positive(
            maximum=LARGEST_COUNT,
            num_experts=self.num_experts,
            num_experts_per_token=self.num_experts_per_token,
            num_groups=self.num_groups,
            num_groups_per_token=self.num_groups_per_token,
        )
        require_positive(minimum=0, maximum=LARGEST_COUNT, num_shared_experts=self.num_shared_experts)
        require_positive(intermediate_size=self.intermediate_size)
        require_known("gate", self.gate, _GATES)
        require_known("score", self.score, ("softmax", "sigmoid"))
        require_number(0, 1e4, "use 1", weight_scale=self.weight_scale)
        require_flags(self)
        if self.shared_gate and not self.num_shared_experts:
            raise ConfigError(
                "there are no shared experts to gate",
                "use num_shared_experts=1 or more, or shared_gate=false",
                option="shared_gate",
                value=True,
            )
        self._check_choice()

    def _check_choice(self) -> None:
        if self.num_experts_per_token > self.num_experts:
            raise ConfigError(
                f"a token cannot pass through more than num_experts={self.num_experts} experts",
                f"use num_experts_per_token={self.num_experts} or less",
                option="num_experts_per_token",
                value=self.num_experts_per_token,
            )
        require_divisor("num_experts", self.num_experts, num_groups=self.num_groups)
        if self.num_groups_per_token > self.num_groups:
            raise ConfigError(
                f"there are only num_groups={self.num_groups} groups",
                f"use num_groups_per_token={self.num_groups} or less",
                option="num_groups_per_token",
                value=self.num_groups_per_token,
            )
        reachable = self.num_experts // self.num_groups * self.num_groups_per_token
        if self.num_experts_per_token > reachable:
            raise ConfigError(
                f"the groups of a token (num_groups_per_token={self.num_groups_per_token}) hold {reachable} "
                "experts",
                f"use num_experts_per_token={reachable} or less, or more groups a token",
                option="num_experts_per_token",
                value=self.num_experts_per_token,
            )

    def build(self, hidden_size: int, layer: int = 0) -> nn.Module:
        return MixtureModule(self, hidden_size, self.intermediate_size or self._default_width(hidden_size))

    def _default_width(self, hidden_size: int) -> int:
        num_used = self.num_experts_per_token + self.num_shared_experts
        return -(-default_width(hidden_size) // (num_used * 16)) * 16


class MixtureModule(nn.Module):
    """The built form of :class:`MixtureOfExperts`.

    Tokens are copied once for each of their experts and sorted by expert, so that one product serves all
    tokens of an expert.

    Attributes:
        router: Chooses the experts of each token.
        shared: The layer that every token passes through, or ``None``.
    """

    counts_tokens = True

    def __init__(self, config: MixtureOfExperts, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.num_experts = config.num_experts
        self.gated = _GATES[config.gate]
        self.weighted_inputs = config.weighted_inputs
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
        self.shared_gate = RouterProjection(hidden_size, [1]) if config.shared_gate else None

    def forward(self, hidden: torch.Tensor, real_tokens: torch.Tensor | None = None) -> torch.Tensor:
        """Pass each token ``(..., hidden_size)`` through its experts.

        ``real_tokens`` is bool ``(...)``, False at padding, which the router does not count; ``None`` = all
        real.
        """
        tokens = hidden.reshape(-1, hidden.shape[-1])
        experts, weights = self.router(tokens, None if real_tokens is None else real_tokens.flatten())
        mixed = self._mix(tokens, experts, weights)
        if self.shared is not None:
            shared = self.shared(tokens)
            if self.shared_gate is not None:
                shared = shared * torch.sigmoid(self.shared_gate(tokens))
            mixed = mixed + shared
        return mixed.view(hidden.shape)

    def _mix(self, tokens: torch.Tensor, experts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        num_chosen = experts.shape[1]
        owners, order = experts.flatten().sort(stable=True)
        ranks = order.argsort()
        ends = torch.searchsorted(owners, torch.arange(self.num_experts, device=owners.device), right=True)
        rows = _gather(tokens, order, ranks, num_chosen)
        if self.weighted_inputs:
            rows = rows * weights.flatten()[order].unsqueeze(-1).to(rows.dtype)
        rows = self.expert_down(self.gated(self.expert_gate_up(rows, owners, ends)), owners, ends)
        outputs = _gather(rows, ranks, order, 1).view(*experts.shape, -1)
        if self.weighted_inputs:
            return torch.sum(outputs, dim=1)
        return torch.sum(outputs * weights.unsqueeze(-1).to(outputs.dtype), dim=1)


def _gather(rows: torch.Tensor, order: torch.Tensor, ranks: torch.Tensor, copies: int) -> torch.Tensor:
    """Return the rows ``(rows, channels)``, each copied ``copies`` times in succession, in another order.

    Copy ``order[i]`` comes to place i; ``ranks`` is the inverse of ``order``, int64 ``(rows * copies,)``.
    """
    gathered: torch.Tensor = _Gather.apply(rows, order, ranks, copies)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """A gather whose gradient is a gather too; autograd would add row by row, on CUDA in random order."""

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
