"""Muon on the matrices inside blocks, AdamW on everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from insight.models import muon_splits, parameter_role
from insight.training.optimizers.base import OptimizerConfig


@dataclass(frozen=True)
class MuonAdamW(OptimizerConfig):
    """Muon (Jordan et al. 2024) on hidden matrices, AdamW on embedding, head and vectors.

    Args:
        learning_rate: Of Muon.
        adam_learning_rate: Of the head and vectors.
        embedding_learning_rate: Of the token embedding.
        momentum: Of Muon.
        num_iterations: Newton-Schulz iterations.
    """

    learning_rate: float = 0.02
    adam_learning_rate: float = 3e-3
    embedding_learning_rate: float = 0.09
    momentum: float = 0.95
    num_iterations: int = 5

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        roles, splits = parameter_role(network), muon_splits(network)
        groups: dict[str, list[nn.Parameter]] = {"embedding": [], "head": [], "vector": [], "hidden": []}
        split_of = {}
        for name, parameter in network.named_parameters():
            groups[roles[name]].append(parameter)
            split_of[parameter] = splits.get(name, (parameter.shape[0],))
        rates = {"embedding": self.embedding_learning_rate, "hidden": self.learning_rate}
        return MuonAdamWOptimizer(
            [
                {
                    "params": p,
                    "role": role,
                    "lr": rates.get(role, self.adam_learning_rate),
                    "initial_lr": rates.get(role, self.adam_learning_rate),
                    "momentum": self.momentum,
                    "num_iterations": self.num_iterations,
                }
                for role, p in groups.items()
                if p
            ],
            split_of,
        )


class MuonAdamWOptimizer(torch.optim.Optimizer):
    """The built form of :class:`MuonAdamW`."""

    def __init__(self, groups: list[dict[str, Any]], splits: dict[nn.Parameter, tuple[int, ...]]) -> None:
        super().__init__(groups, {})
        self.splits = splits

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            (self._muon if group["role"] == "hidden" else self._adam)(group)
        return loss

    def _adam(self, group: dict[str, Any]) -> None:
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state.update(
                    step=torch.zeros(()), exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p)
                )
            state["step"] += 1
            torch._fused_adamw_(
                [p],
                [p.grad],
                [state["exp_avg"]],
                [state["exp_avg_sq"]],
                [],
                [state["step"]],
                lr=group["lr"],
                beta1=0.9,
                beta2=0.95,
                weight_decay=0.0,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )

    def _muon(self, group: dict[str, Any]) -> None:
        parts: dict[tuple[int, ...], list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            state["momentum"].lerp_(p.grad, 1 - group["momentum"])
            update = p.grad.lerp(state["momentum"], group["momentum"])
            sizes = list(self.splits[p])
            for weight, part in zip(p.split(sizes), update.split(sizes), strict=True):
                parts.setdefault(tuple(part.shape), []).append((weight, part))
        for shape, pairs in parts.items():
            x = torch.stack([part for _, part in pairs]).bfloat16()
            transposed = shape[0] > shape[1]
            x = x.mT if transposed else x
            x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
            for _ in range(group["num_iterations"]):
                gram = x @ x.mT
                x = torch.baddbmm(
                    x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445
                )
            x = x.mT if transposed else x
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for (weight, _), update in zip(pairs, x, strict=True):
                weight.add_(update.to(weight.dtype), alpha=-group["lr"] * scale)
