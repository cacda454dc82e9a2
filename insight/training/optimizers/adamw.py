"""AdamW with a separate learning rate for the token embedding, and weight decay of matrices only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from insight.training.optimizers.base import LAYER_DECAY, MEAN_DECAY, RATE, WEIGHT_DECAY, OptimizerConfig
from insight.training.optimizers.parameter_groups import DECAYED_ROLES, parameter_groups


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

    _ranges: ClassVar[dict[str, dict[str, Any]]] = {
        "learning_rate": RATE,
        "embedding_learning_rate": RATE,
        "beta1": MEAN_DECAY,
        "beta2": MEAN_DECAY,
        "eps": {"example": 1e-8, "at_least": 0, "at_most": 1},
        "weight_decay": WEIGHT_DECAY,
        "layer_decay": LAYER_DECAY,
    }

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = []
        for group in parameter_groups(network, self.layer_decay):
            rate = self.learning_rate
            if group.role == "embedding" and self.embedding_learning_rate is not None:
                rate = self.embedding_learning_rate
            rate *= group.rate_factor
            groups.append(
                {
                    "params": list(group.parameters.values()),
                    "role": group.role,
                    "lr": rate,
                    "initial_lr": rate,
                    "weight_decay": self.weight_decay if group.role in DECAYED_ROLES else 0.0,
                }
            )
        # Parameters that are sharded over different meshes cannot share a fused kernel.
        meshes = {p.device_mesh if isinstance(p, DTensor) else None for p in network.parameters()}
        fused = len(meshes) == 1
        return torch.optim.AdamW(
            groups, betas=(self.beta1, self.beta2), eps=self.eps, weight_decay=0.0, fused=fused
        )
