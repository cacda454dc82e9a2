"""Routers, which choose and weight the experts of a token, and the balance of their load."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from insight.models.checks import require_number
from insight.models.linear import Projection
from insight.runtime.component import Component


@dataclass(frozen=True)
class RouterBalance(Component):
    """A rule that spreads tokens over experts in training."""

    @property
    @abstractmethod
    def loss_coefficient(self) -> float:
        """Factor of :func:`balance_loss` in the training loss; 0 for none."""

    @property
    def moves_bias(self) -> bool:
        """Whether the router has a bias that affects only its choice, moved by :meth:`bias_change`."""
        return False

    def bias_change(self, counts: torch.Tensor) -> torch.Tensor:
        """Return the change of that bias after an optimizer step.

        Args:
            counts: int64 ``(num_experts,)``: how often each expert was chosen for the tokens of the step.
        """
        return torch.zeros_like(counts, dtype=torch.float32)


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

    def __post_init__(self) -> None:
        require_number(0, 100, "use 0.001, or balance=null for none", rate=self.rate)

    @property
    def loss_coefficient(self) -> float:
        return 0.0

    @property
    def moves_bias(self) -> bool:
        return True

    def bias_change(self, counts: torch.Tensor) -> torch.Tensor:
        loads = counts.to(torch.float32)
        return self.rate * torch.sign(loads.mean() - loads)


def balance_loss(
    counts: torch.Tensor, probabilities: torch.Tensor, real_tokens: torch.Tensor | None = None
) -> torch.Tensor:
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


class Chosen(NamedTuple):
    """The experts that a router chose.

    Attributes:
        experts: int64 ``(tokens, num_experts_per_token)``, in no particular order.
        weights: Factors of the experts' outputs, of the shape of ``experts``, at least float32.
    """

    experts: torch.Tensor
    weights: torch.Tensor


class Routed(NamedTuple):
    """The choices of a router in one training pass.

    Attributes:
        balance: The scalar of :func:`balance_loss`, differentiable.
        counts: int64 ``(num_experts,)``: how often each expert was chosen.
    """

    balance: torch.Tensor
    counts: torch.Tensor


class Router(nn.Module):
    """Scores experts and chooses the best for each token; arguments as in :class:`MixtureOfExperts`.

    Scores are computed in float32 whatever the network's dtype: near a tie, rounding would change the choice.
    Groups are ranked by the sum of their two best scores (DeepSeek-V3, arXiv 2412.19437, section 2.1.2).

    Attributes:
        balance: The rule that spreads tokens over experts, or ``None``.
        choice_bias: Bias of the scores that choose experts, ``(num_experts,)``, float32 or wider; ``None`` if
            ``balance`` moves none.
    """

    choice_bias: torch.Tensor | None

    def __init__(
        self,
        hidden_size: int,
        num_experts: int,
        num_experts_per_token: int,
        *,
        score: Score,
        normalized_weights: bool,
        weight_scale: float,
        num_groups: int,
        num_groups_per_token: int,
        bias: bool,
        balance: RouterBalance | None,
    ) -> None:
        super().__init__()
        self.num_experts, self.num_experts_per_token = num_experts, num_experts_per_token
        self.score = score
        self.normalized_weights, self.weight_scale = normalized_weights, weight_scale
        self.num_groups, self.num_groups_per_token = num_groups, num_groups_per_token
        self.balance = balance
        self.projection = RouterProjection(hidden_size, [num_experts], bias=bias)
        has_choice_bias = balance is not None and balance.moves_bias
        self.register_buffer("choice_bias", torch.empty(num_experts) if has_choice_bias else None)
        self.reset_parameters()
        self._balance: torch.Tensor | None = None
        self._counts: torch.Tensor | None = None

    def reset_parameters(self) -> None:
        """Set the bias of the choice to zero; the projection initialises itself."""
        if self.choice_bias is not None:
            nn.init.zeros_(self.choice_bias)

    def forward(self, hidden: torch.Tensor, real_tokens: torch.Tensor | None = None) -> Chosen:
        """Choose experts for each token ``(tokens, hidden_size)``.

        ``real_tokens`` is bool ``(tokens,)``, False at padding, which the balance does not count; ``None`` =
        all real.
        """
        scores = self._scores(hidden)
        experts = self._choose(scores.detach())
        if self.training and torch.is_grad_enabled():
            self._record(scores, experts, real_tokens)
        weights = scores.gather(1, experts)
        if self.normalized_weights:
            weights = weights / weights.sum(dim=-1, keepdim=True).clamp_min(1e-20)
        return Chosen(experts, weights if self.weight_scale == 1 else weights * self.weight_scale)

    def take(self) -> Routed | None:
        """Return the choices of the last training pass; ``None`` if there was none since the last call."""
        balance, counts = self._balance, self._counts
        self._balance = self._counts = None
        return None if balance is None or counts is None else Routed(balance, counts)

    @torch.no_grad()
    def move_bias(self, counts: torch.Tensor) -> None:
        """Move the bias of the choice, if there is one, by the load of an optimizer step.

        Args:
            counts: int64 ``(num_experts,)``, over all tokens of the step.
        """
        if self.choice_bias is not None and self.balance is not None:
            self.choice_bias += self.balance.bias_change(counts).to(self.choice_bias.dtype)

    def _scores(self, hidden: torch.Tensor) -> torch.Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        weight, bias = self.projection.weight, self.projection.bias
        with torch.autocast(hidden.device.type, enabled=False):
            logits = F.linear(hidden.to(wide), weight.to(wide), None if bias is None else bias.to(wide))
        return logits.softmax(dim=-1) if self.score == "softmax" else logits.sigmoid()

    def _choose(self, scores: torch.Tensor) -> torch.Tensor:
        if self.choice_bias is not None:
            scores = scores + self.choice_bias
        if self.num_groups > 1:
            grouped = scores.view(scores.shape[0], self.num_groups, -1)
            merits = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(dim=-1)
            groups = merits.topk(self.num_groups_per_token, dim=-1, sorted=False).indices
            closed = torch.ones_like(merits, dtype=torch.bool).scatter(1, groups, False)
            scores = grouped.masked_fill(closed.unsqueeze(-1), float("-inf")).flatten(1)
        return scores.topk(self.num_experts_per_token, dim=-1, sorted=False).indices

    def _record(self, scores: torch.Tensor, experts: torch.Tensor, real_tokens: torch.Tensor | None) -> None:
        chosen = experts.flatten()
        ones = torch.ones_like(chosen)
        if real_tokens is not None:
            ones = real_tokens.to(chosen.dtype).repeat_interleave(self.num_experts_per_token)
        counts = torch.zeros(self.num_experts, dtype=torch.int64, device=chosen.device)
        counts = counts.scatter_add(0, chosen, ones)
        is_distribution = self.score == "softmax"
        probabilities = scores if is_distribution else scores / scores.sum(dim=-1, keepdim=True)
        self._balance, self._counts = balance_loss(counts, probabilities, real_tokens), counts

    def __getstate__(self) -> dict[str, Any]:
        # The results of the last pass belong to its graph, which can be neither copied nor saved.
        return {**self.__dict__, "_balance": None, "_counts": None}

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Router:
        # A bias that moves by a thousandth each step would not move at all in 16 bits.
        before = self.choice_bias
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if before is not None and self.choice_bias is not None and self.choice_bias.dtype.itemsize < 4:
            self.choice_bias = before.to(self.choice_bias.device)
        return self
