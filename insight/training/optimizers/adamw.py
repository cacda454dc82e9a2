"""AdamW with a separate learning rate for the token embedding, and weight decay of matrices only."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number
from insight.training.optimizers.base import (
    DECAYED_ROLES,
    RATE,
    OptimizerConfig,
    optimizer_groups,
    parameter_groups,
)


@dataclass(frozen=True)
class AdamW(OptimizerConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101), fused.

    Args:
        learning_rate: Learning rate of everything but the token embedding.
        embedding_learning_rate: Learning rate of the token embedding; ``None`` for ``learning_rate``. A row
            changes only when its token occurs, so ten times the rate or more is stable.
        beta1: Decay of the mean of gradients.
        beta2: Decay of the mean of squared gradients.
        eps: Number that is added to the root of the mean square.
        weight_decay: Weight decay of matrices inside blocks and of the head; norms, biases, embeddings and
            routers of experts have none.
        layer_decay: Factor of the learning rate from each block to the one below, the embedding last; 1 for
            none. It is meant for fine-tuning (arXiv 2003.10555).
    """

    learning_rate: float = 3e-3
    embedding_learning_rate: float | None = None
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    layer_decay: float = 1.0

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        def options(role: str) -> tuple[float, dict[str, Any]]:
            rate = self.embedding_learning_rate if role == "embedding" else None
            decay = self.weight_decay if role in DECAYED_ROLES else 0.0
            return self.learning_rate if rate is None else rate, {"weight_decay": decay}

        groups = optimizer_groups(parameter_groups(network, self.layer_decay), options)
        # Parameters that are sharded over different meshes cannot share a fused kernel.
        meshes = {p.device_mesh if isinstance(p, DTensor) else None for p in network.parameters()}
        betas, fused = (self.beta1, self.beta2), len(meshes) == 1
        return torch.optim.AdamW(groups, betas=betas, eps=self.eps, weight_decay=0.0, fused=fused)


OptimizerFactory = Callable[[Iterable[Any]], torch.optim.Optimizer]
"""A function that builds an optimizer from parameter groups: in YAML ``class_path`` and ``init_args``."""


@dataclass(frozen=True)
class AnyOptimizer(OptimizerConfig):
    """Any optimizer of torch or of another package, with its own options.

    Without the options below, its class can be given directly:
    ``model.optimizer: {class_path: torch.optim.RAdam, init_args: {lr: 0.001}}``. Norms, biases, embeddings
    and routers get no weight decay. An optimizer with ``train()`` and ``eval()`` is switched for evaluation
    and saving.

    Args:
        optimizer: Class and options, e.g. ``{class_path: torch.optim.RAdam, init_args: {lr: 0.001}}``. It
            must accept parameter groups, have a learning rate ``lr``, and ``step(closure)``.
        embedding_learning_rate: Learning rate of the token embedding; null for that of other parameters.
        layer_decay: Factor of the learning rate from each block to the one below, the embedding last; 1 for
            none (arXiv 2003.10555).
    """

    optimizer: OptimizerFactory
    embedding_learning_rate: float | None = None
    layer_decay: float = 1.0

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        groups = parameter_groups(network, self.layer_decay)
        named: Any = {"option": "model.optimizer", "value": self._name}
        plain = [{"params": list(group.parameters.values()), "role": group.role} for group in groups]
        try:
            optimizer = self.optimizer(plain)
        except (TypeError, ValueError, RuntimeError) as error:
            problem = next(iter(str(error).splitlines()), type(error).__name__)
            raise ConfigError(problem, "change its options, or choose another class", **named) from error
        for built, group in zip(optimizer.param_groups, groups, strict=True):
            if "lr" not in built:
                raise ConfigError("has no learning rate called lr", "choose another class", **named)
            self._check_numbers(built)
            if group.role == "embedding" and self.embedding_learning_rate is not None:
                built["lr"] = self.embedding_learning_rate
            built["lr"] = built["initial_lr"] = built["lr"] * group.rate_factor
            if "weight_decay" in built and group.role not in DECAYED_ROLES:
                built["weight_decay"] = 0.0
        _train(optimizer)
        return optimizer

    def numbers_kept(self, role: str) -> int:
        """Count the numbers after one step on a small matrix; assume those of Adam if the step fails."""
        weight = nn.Parameter(torch.zeros(4, 4))
        weight.grad = torch.zeros_like(weight)
        try:
            optimizer = self.optimizer([weight])
            _train(optimizer)
            optimizer.step()
        except (TypeError, ValueError, RuntimeError):
            return super().numbers_kept(role)
        kept = (value for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor))
        return sum(value.numel() for value in kept) // weight.numel()

    def _check_numbers(self, options: dict[str, Any]) -> None:
        """Refuse NaN and infinity, which torch's optimizers mostly accept."""
        name = f"model.optimizer {self._name}: "
        if not isinstance(options["lr"], torch.Tensor):
            require_number(f"{name}lr", options["lr"], **RATE)
        for option, value in options.items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and not math.isfinite(number):
                    require_number(f"{name}{option}", number, 0.1)

    @property
    def _name(self) -> str:
        made = self.optimizer
        if isinstance(made, functools.partial):  # made by jsonargparse, with the class among its arguments
            made = next((argument for argument in made.args if isinstance(argument, type)), made.func)
        return str(getattr(made, "__name__", made))


def as_optimizer_config(given: OptimizerConfig | OptimizerFactory) -> OptimizerConfig:
    """The configuration for a value of ``model.optimizer``, which may be an optimizer class with options."""
    return given if isinstance(given, OptimizerConfig) else AnyOptimizer(given)


def _train(optimizer: Any) -> None:
    """Schedule-free optimizers refuse to step before they are told to train."""
    if hasattr(optimizer, "train"):
        optimizer.train()
