"""Which processes see different samples: all of them, unless some share the matrices of one replica."""

from __future__ import annotations

from typing import Any

import torch


def num_replicas(trainer: Any) -> int:
    """How many processes, or groups of processes, see different samples."""
    placed = trainer.distributed_sampler_kwargs
    return 1 if placed is None else int(placed["num_replicas"])


def replica_rank(trainer: Any) -> int:
    """The number of this process among them; processes of one tensor-parallel group have the same."""
    placed = trainer.distributed_sampler_kwargs
    return 0 if placed is None else int(placed["rank"])


def sum_over_replicas(tensor: torch.Tensor, trainer: Any) -> torch.Tensor:
    """Sum of what each replica counted; every process must ask at the same time."""
    if trainer.world_size == 1:
        return tensor
    total: torch.Tensor = trainer.strategy.reduce(tensor.clone(), reduce_op="sum")  # works in place
    processes_each: int = trainer.world_size // num_replicas(trainer)
    return total / processes_each if total.is_floating_point() else total // processes_each
