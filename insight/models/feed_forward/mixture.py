"""Mixtures of experts (Shazeer et al. 2017, arXiv 1701.06538)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from insight.models.checks import (
    LARGEST_COUNT,
    require,
    require_divisor,
    require_flags,
    require_known,
    require_number,
    require_positive,
)
from insight.models.feed_forward.dense import Activation, FeedForward, GatedModule, default_width, gated_silu
from insight.models.linear import Projection, StackedProjection
from insight.runtime.component import Component


@dataclass(frozen=True)
class RouterBalance(Component):
    """A rule that spreads tokens over experts in training."""

    moves_bias: ClassVar[bool] = False
    """Whether the router has a bias that affects only its choice, moved by :meth:`bias_change`."""

    @property
    @abstractmethod
    def loss_coefficient(self) -> float:
        """Factor of :func:`balance_loss` in the training loss; 0 for none."""

    def bias_change(self, counts: Tensor) -> Tensor:
        """Return the change of that bias after an optimizer step.

        Args:
            counts: int64 ``(num_experts,)``: how often each expert was chosen for the tokens of the step.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class BalanceLoss(RouterBalance):
    """A loss that is lowest if all experts are chosen equally often (Fedus et al. 2021, arXiv 2101.03961).

    Args:
        coefficient: Factor of this loss beside the mean loss of a token.
    """

    coefficient: float = 0.01

    def __post_init__(self) -> None:
        require_number(0, 100, "use 0.01, or balance=null for none", coefficient=self.coefficient)

    @property
    def loss_coefficient(self) -> float:
        return self.coefficient


@dataclass(frozen=True)
class BalanceBias(RouterBalance):
    """A bias of each expert that follows its load and changes no gradient (DeepSeek-V3, arXiv 2412.19437).

    After each step it falls for experts with more than the mean load and rises for the others. It is added to
    the scores that choose experts, not to those that weight their outputs.

    Args:
        rate: Change of the bias in each step.
    """

    rate: float = 0.001
    moves_bias = True
    loss_coefficient = 0.0

    def __post_init__(self) -> None:
        require_number(0, 100, "use 0.001, or balance=null for none", rate=self.rate)

    def bias_change(self, counts: Tensor) -> Tensor:
        loads = counts.to(torch.float32)
        return self.rate * torch.sign(loads.mean() - loads)


def balance_loss(counts: Tensor, probabilities: Tensor, real_tokens: Tensor | None = None) -> Tensor:
    """num_experts x sum over experts of share x mean probability: 1 for an even load, otherwise more.

    Fedus et al. 2021, arXiv 2101.03961, equations 4 to 6, with shares of all choices of all tokens, so that
    it does not grow with the number of experts of a token. The gradient passes through the probabilities.

    Args:
        counts: int64 ``(num_experts,)``: how often each expert was chosen.
        probabilities: ``(tokens, num_experts)``; each row sums to 1.
        real_tokens: Bool ``(tokens,)``, False at padding, which does not count; ``None`` = all are real.
    """
    if real_tokens is None:
        shares, mean = counts.to(probabilities.dtype) / counts.sum(), probabilities.mean(dim=0)
    else:
        shares = counts.to(probabilities.dtype) / counts.sum().clamp_min(1)
        # `where`, not times 0: the scores of padding may be NaN or infinite.
        total = probabilities.where(real_tokens.unsqueeze(1), 0).sum(dim=0)
        mean = total / real_tokens.sum().clamp_min(1)
    return counts.shape[0] * (shares * mean).sum()


Score = Literal["softmax", "sigmoid"]


class RouterProjection(Projection):
    """A map from hidden states to a score for each expert."""

    parameter_role = "router"


class Routed(NamedTuple):
    """The choices of a router in one training pass.

    Attributes:
        balance: The scalar of :func:`balance_loss`, differentiable.
        counts: int64 ``(num_experts,)``: how often each expert was chosen.
    """

    balance: Tensor
    counts: Tensor


class Router(nn.Module):
    """Scores the experts of ``config`` and chooses the best for each token.

    Scores are computed in float32 whatever the network's dtype: near a tie, rounding would change the choice.
    Groups are ranked by the sum of their two best scores (DeepSeek-V3, arXiv 2412.19437, section 2.1.2).

    Attributes:
        balance: The rule that spreads tokens over experts, or ``None``.
        choice_bias: Bias of the scores that choose experts, ``(num_experts,)``, float32 or wider; ``None`` if
            ``balance`` moves none.
    """

    choice_bias: Tensor | None

    def __init__(self, config: MixtureOfExperts, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        self.num_experts, self.balance = config.num_experts, config.balance
        self.projection = RouterProjection(hidden_size, [self.num_experts], bias=config.router_bias)
        has_choice_bias = self.balance is not None and self.balance.moves_bias
        self.register_buffer("choice_bias", torch.zeros(self.num_experts) if has_choice_bias else None)
        self._routed: Routed | None = None

    def reset_parameters(self) -> None:
        if self.choice_bias is not None:
            nn.init.zeros_(self.choice_bias)

    def forward(self, hidden: Tensor, real_tokens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Choose experts for each token ``(tokens, hidden_size)``; the balance counts only real tokens.

        Returns:
            int64 experts and the factors of their outputs, at least float32, both ``(tokens,
            num_experts_per_token)`` in no particular order.
        """
        scores = self._scores(hidden)
        experts = self._choose(scores.detach())
        if self.training and torch.is_grad_enabled():
            self._record(scores, experts, real_tokens)
        weights = scores.gather(1, experts)
        if self.config.normalized_weights:
            weights = weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-20)
        scale = self.config.weight_scale
        return experts, weights if scale == 1 else weights * scale

    def take(self) -> Routed | None:
        """Return the choices of the last training pass; ``None`` if there was none since the last call."""
        routed, self._routed = self._routed, None
        return routed

    @torch.no_grad()
    def move_bias(self, counts: Tensor) -> None:
        """Move the bias of the choice, if any, by the int64 ``(num_experts,)`` load of an optimizer step."""
        if self.choice_bias is not None and self.balance is not None:
            self.choice_bias += self.balance.bias_change(counts).to(self.choice_bias.dtype)

    def _scores(self, hidden: Tensor) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        weight, bias = self.projection.weight, self.projection.bias
        with torch.autocast(hidden.device.type, enabled=False):
            logits = F.linear(hidden.to(wide), weight.to(wide), None if bias is None else bias.to(wide))
        return logits.softmax(dim=-1) if self.config.score == "softmax" else logits.sigmoid()

    def _choose(self, scores: Tensor) -> Tensor:
        if self.choice_bias is not None:
            scores = scores + self.choice_bias
        if self.config.num_groups > 1:
            grouped = scores.view(scores.shape[0], self.config.num_groups, -1)
            merits = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(dim=-1)
            groups = merits.topk(self.config.num_groups_per_token, dim=-1, sorted=False).indices
            closed = torch.ones_like(merits, dtype=torch.bool).scatter(1, groups, False)
            scores = grouped.masked_fill(closed.unsqueeze(-1), float("-inf")).flatten(1)
        return scores.topk(self.config.num_experts_per_token, dim=-1, sorted=False).indices

    def _record(self, scores: Tensor, experts: Tensor, real_tokens: Tensor | None) -> None:
        chosen = experts.flatten()
        ones = torch.ones_like(chosen)
        if real_tokens is not None:
            ones = real_tokens.to(chosen.dtype).repeat_interleave(self.config.num_experts_per_token)
        counts = torch.zeros(self.num_experts, dtype=torch.int64, device=chosen.device)
        counts = counts.scatter_add(0, chosen, ones)
        is_distribution = self.config.score == "softmax"
        probabilities = scores if is_distribution else scores / scores.sum(dim=-1, keepdim=True)
        self._routed = Routed(balance_loss(counts, probabilities, real_tokens), counts)

    def __getstate__(self) -> dict[str, Any]:
        # The results of the last pass belong to its graph, which can be neither copied nor saved.
        return {**self.__dict__, "_routed": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Router:
        # A bias that moves by a thousandth each step would not move at all in 16 bits.
        before = self.choice_bias
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if before is not None and self.choice_bias is not None and self.choice_bias.dtype.itemsize < 4:
            self.choice_bias = before.to(self.choice_bias.device)
        return self


_CLAMP, _SLOPE = 7.0, 1.702


def clamped_gate(gate_up: Tensor) -> Tensor:
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
        experts, groups, chosen = self.num_experts, self.num_groups, self.num_experts_per_token
        problem = f"a token cannot pass through more than num_experts={experts} experts"
        _require_at_most(experts, problem, num_experts_per_token=chosen)
        require_divisor("num_experts", experts, num_groups=groups)
        problem = f"there are only num_groups={groups} groups"
        _require_at_most(groups, problem, num_groups_per_token=self.num_groups_per_token)
        reachable = experts // groups * self.num_groups_per_token
        named = f"num_groups_per_token={self.num_groups_per_token}"
        problem = f"the groups of a token ({named}) hold {reachable} experts"
        _require_at_most(reachable, problem, ", or more groups a token", num_experts_per_token=chosen)
        require(
            not self.shared_gate or self.num_shared_experts > 0,
            "there are no shared experts to gate",
            "use num_shared_experts=1 or more, or shared_gate=false",
            shared_gate=True,
        )

    def build(self, hidden_size: int, layer: int = 0) -> nn.Module:
        return MixtureModule(self, hidden_size, self.width(hidden_size))

    def width(self, hidden_size: int) -> int:
        """Width of one expert."""
        num_used = self.num_experts_per_token + self.num_shared_experts
        return self.intermediate_size or -(-default_width(hidden_size) // (num_used * 16)) * 16


def _require_at_most(most: int, problem: str, advice: str = "", **option: int) -> None:
    ((name, value),) = option.items()
    require(value <= most, problem, f"use {name}={most} or less{advice}", **option)


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
        self.router = Router(config, hidden_size)
        numbers = config.num_experts, config.num_experts_per_token
        splits, bias = [intermediate_size, intermediate_size], config.expert_bias
        self.expert_gate_up = StackedProjection(*numbers, hidden_size, splits, bias=bias)
        self.expert_down = StackedProjection(
            *numbers, intermediate_size, [hidden_size], bias=bias, writes_residual=True
        )
        width = config.num_shared_experts * intermediate_size
        self.shared = GatedModule(hidden_size, width, self.gated, bias) if width else None
        self.shared_gate = RouterProjection(hidden_size, [1]) if config.shared_gate else None

    def forward(self, hidden: Tensor, real_tokens: Tensor | None = None) -> Tensor:
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

    def _mix(self, tokens: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
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


def _gather(rows: Tensor, order: Tensor, ranks: Tensor, copies: int) -> Tensor:
    """Return the rows ``(rows, channels)``, each copied ``copies`` times in succession, in another order.

    Copy ``order[i]`` comes to place i; ``ranks`` is the inverse of ``order``, int64 ``(rows * copies,)``.
    """
    gathered: Tensor = _Gather.apply(rows, order, ranks, copies)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """A gather whose gradient is a gather too; autograd would add row by row, on CUDA in random order."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, ranks: Tensor, copies: int) -> Tensor:
        ctx.save_for_backward(ranks)
        ctx.copies = copies
        return rows.index_select(0, order if copies == 1 else order // copies)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (ranks,) = ctx.saved_tensors
        sorted_back = gradient.index_select(0, ranks)
        if ctx.copies > 1:
            sorted_back = sorted_back.view(-1, ctx.copies, sorted_back.shape[1]).sum(dim=1)
        return sorted_back, None, None, None
