"""Muon on the matrices inside blocks, AdamW on everything else, in one optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.adamw import adamw

from insight.models import muon_splits
from insight.runtime.errors import ConfigError
from insight.training.optimizers.base import (
    OptimizerConfig,
    check_decay,
    check_rate,
    check_share,
    parameters_by_role,
)

# The quintic of Jordan et al.: x -> a x + b x^3 + c x^5 drives singular values between 0 and 1 towards 1
# fast at the price of leaving them within about [0.7, 1.2].
_A, _B, _C = 3.4445, -4.7750, 2.0315


@dataclass(frozen=True)
class MuonAdamW(OptimizerConfig):
    """Momentum orthogonalised by Newton-Schulz for hidden matrices, AdamW for the rest.

    Muon: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/); the update of a matrix is scaled
    by sqrt(max(1, rows / columns)). Matrices that share one weight (queries, keys and values; gate and up)
    are orthogonalised one by one, all of equal shape in one batched product.

    Args:
        learning_rate: Of Muon: about the spectral norm of a step.
        adam_learning_rate: Of the head, norms and biases.
        embedding_learning_rate: Of the token embedding. A row moves only when its token occurs, so it bears
            a much higher rate; it was what counted most in short runs.
        momentum: Of Muon, with Nesterov's look ahead.
        num_iterations: Newton-Schulz iterations.
        beta1: Of AdamW: decay of the mean of gradients.
        beta2: Of AdamW: decay of the mean of squared gradients.
        weight_decay: Of the hidden matrices, decoupled.
    """

    learning_rate: float = 0.02
    adam_learning_rate: float = 3e-3
    embedding_learning_rate: float = 0.09
    momentum: float = 0.95
    num_iterations: int = 5
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "adam_learning_rate", "embedding_learning_rate"):
            check_rate(name, getattr(self, name))
        for name in ("momentum", "beta1", "beta2"):
            check_share(name, getattr(self, name))
        check_decay(self.weight_decay)
        if not 1 <= self.num_iterations <= 20:
            raise ConfigError(f"num_iterations={self.num_iterations}: must lie between 1 and 20", "use 5")

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        splits = muon_splits(network)
        groups: list[dict[str, Any]] = []
        rows_of: dict[nn.Parameter, tuple[int, ...]] = {}
        for role, parameters in parameters_by_role(network).items():
            common = {"params": list(parameters.values()), "role": role}
            if role == "hidden":
                rows_of.update({p: splits.get(name, (p.shape[0],)) for name, p in parameters.items()})
                rate = self.learning_rate
                settings = {
                    "momentum": self.momentum,
                    "num_iterations": self.num_iterations,
                    "weight_decay": self.weight_decay,
                }
            else:
                rate = self.embedding_learning_rate if role == "embedding" else self.adam_learning_rate
                settings = {"beta1": self.beta1, "beta2": self.beta2}
            groups.append({**common, "lr": rate, "initial_lr": rate, **settings})
        return MuonAdamWOptimizer(groups, rows_of)


class MuonAdamWOptimizer(torch.optim.Optimizer):
    """The built form of :class:`MuonAdamW`.

    Args:
        groups: Parameter groups; those of role ``hidden`` are updated by Muon, all others by AdamW.
        rows_of: For each hidden parameter the rows of the matrices that it fuses.
    """

    def __init__(self, groups: list[dict[str, Any]], rows_of: dict[nn.Parameter, tuple[int, ...]]) -> None:
        super().__init__(groups, {})
        self._rows_of = rows_of

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["role"] == "hidden":
                self._muon(group, parameters)
            elif parameters:
                self._adamw(group, parameters)
        return loss

    def _adamw(self, group: dict[str, Any], parameters: list[nn.Parameter]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self.state[p] for p in parameters]
        adamw(
            list(parameters),
            [p.grad for p in parameters if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            maximize=False,
            lr=group["lr"],
            beta1=group["beta1"],
            beta2=group["beta2"],
            weight_decay=0.0,
            eps=1e-8,
        )

    def _muon(self, group: dict[str, Any], parameters: list[nn.Parameter]) -> None:
        # Matrices that are transposes of one another share a batch: the iteration works on the wide form.
        batches: dict[tuple[int, int], list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for parameter in parameters:
            gradient = parameter.grad
            assert gradient is not None
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum: torch.Tensor = state["momentum"].lerp_(gradient, 1 - group["momentum"])
            update = gradient.lerp(momentum, group["momentum"])
            rows = list(self._rows_of[parameter])
            for matrix, part in zip(torch.split(parameter, rows), torch.split(update, rows), strict=True):
                wide = part.mT if part.shape[0] > part.shape[1] else part
                batches.setdefault((wide.shape[0], wide.shape[1]), []).append((matrix, wide))
        for pairs in batches.values():
            stacked = torch.stack([wide for _, wide in pairs])
            orthogonal = orthogonalize(stacked, group["num_iterations"])
            for (matrix, _), wide in zip(pairs, orthogonal, strict=True):
                tall = matrix.shape[0] > matrix.shape[1]
                scale = math.sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))
                if group["weight_decay"]:
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_((wide.mT if tall else wide).to(matrix.dtype), alpha=-group["lr"] * scale)


def orthogonalize(matrices: torch.Tensor, num_iterations: int) -> torch.Tensor:
    """Roughly the nearest orthogonal matrices: singular vectors kept, singular values near 1.

    Newton-Schulz iterations in bfloat16 (Jordan et al. 2024; Bernstein and Newhouse 2024,
    arXiv 2409.20325).

    Args:
        matrices: ``(batch, rows, columns)`` with rows <= columns.
        num_iterations: Iterations of the quintic.

    Returns:
        bfloat16 ``(batch, rows, columns)``.
    """
    x = matrices.bfloat16()
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(num_iterations):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x
