"""Several processes: what they share, what each holds a part of, and the strategy that cuts a network."""

import insight.training.parallel.ddp_strategy  # noqa: F401  (registers it)
from insight.training.parallel.build_in_parts import build_in_parts
from insight.training.parallel.fsdp2_strategy import FSDP2Strategy
from insight.training.parallel.replicas import num_replicas, replica_rank, sum_over_replicas
from insight.training.parallel.shard_network import is_sharded

__all__ = [
    "FSDP2Strategy",
    "build_in_parts",
    "is_sharded",
    "num_replicas",
    "replica_rank",
    "sum_over_replicas",
]
