"""Counts over processes: of each replica once, and what a process counts on stays its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from insight.training.parallel import num_replicas, replica_rank, sum_over_replicas


def trainer_of(num_processes: int, placed: dict[str, int] | None) -> Any:
    """Each of the processes has counted the same; the sum is taken in place, as torch does."""
    reduce = lambda tensor, reduce_op: tensor.mul_(num_processes)  # noqa: E731
    return SimpleNamespace(
        world_size=num_processes,
        distributed_sampler_kwargs=placed,
        strategy=SimpleNamespace(reduce=reduce),
    )


def test_processes_that_share_matrices_count_once() -> None:
    trainer = trainer_of(4, {"num_replicas": 2, "rank": 1})
    assert (num_replicas(trainer), replica_rank(trainer)) == (2, 1)
    counts, sums = torch.tensor([3, 5]), torch.tensor([0.5, 0.25])
    assert sum_over_replicas(counts, trainer).tolist() == [6, 10]
    assert sum_over_replicas(sums, trainer).tolist() == [1.0, 0.5]
    assert counts.tolist() == [3, 5]


def test_one_process_is_the_only_replica() -> None:
    trainer = trainer_of(1, None)
    assert (num_replicas(trainer), replica_rank(trainer)) == (1, 0)
    assert sum_over_replicas(torch.tensor(7), trainer) == 7
