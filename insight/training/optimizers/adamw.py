"""AdamW with a separate learning rate for the token embedding, and weight decay of matrices only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from insight.training.optimizers.base import OptimizerConfig
from insight.training.optimizers.parameter_groups import DECAYED_ROLES, optimizer_groups, parameter_groups


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
