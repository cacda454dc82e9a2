"""Several processes: what they share, what each holds a part of, and the strategy that cuts a network."""

from insight.training.parallel.sharding import (
    build_in_parts,
    is_sharded,
    num_replicas,
    replica_rank,
    sum_over_replicas,
)
from insight.training.parallel.strategies import FSDP2Strategy

__all__ = [
    "FSDP2Strategy",
    "build_in_parts",
    "is_sharded",
    "num_replicas",
    "replica_rank",
    "sum_over_replicas",
]
