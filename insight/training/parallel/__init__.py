"""Training with several processes: replicas, sharded networks, and the strategy ``fsdp2``."""

from insight.training.parallel.sharding import build_in_parts as build_in_parts
from insight.training.parallel.sharding import is_sharded as is_sharded
from insight.training.parallel.sharding import num_replicas as num_replicas
from insight.training.parallel.sharding import replica_rank as replica_rank
from insight.training.parallel.sharding import sum_over_replicas as sum_over_replicas
from insight.training.parallel.strategies import FSDP2Strategy as FSDP2Strategy
