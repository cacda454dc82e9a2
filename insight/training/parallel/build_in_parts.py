"""Builds a network of which every process but the first only ever holds its part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh

from insight.models import Decoder, row_orders
from insight.runtime.sharded_tensors import local, part_like
from insight.training.parallel.shard_network import shard_network


@torch.no_grad()
def build_in_parts(build: Callable[[], Decoder], mesh: DeviceMesh, trainer: Any) -> Decoder:
    """A network cut over processes, with the first values that one process would draw.

    The first process draws them, in main memory, and sends them tensor by tensor; each takes its part.

    Args:
        build: Makes the whole network, on the meta device without values.
        mesh: As in :func:`shard_network`.
        trainer: Lightning's, whose processes have met.

    Raises:
        ConfigError: As :func:`shard_network`.
    """
    strategy = trainer.strategy
    with torch.device("meta"):
        network = build()
    shard_network(network, mesh, trainer.precision)
    values = build().state_dict() if strategy.is_global_zero else {}
    # The others have drawn nothing, but go on as if.
    torch.set_rng_state(strategy.broadcast(torch.get_rng_state()))
    network.to_empty(device=strategy.root_device)
    orders = row_orders(network)
    for name, part in network.state_dict().items():
        value = torch.empty(part.shape, dtype=part.dtype, device=part.device)
        if strategy.is_global_zero:
            value.copy_(values.pop(name))
        distributed.broadcast(value, 0)
        local(part).copy_(local(part_like(value, part, orders.get(name))))
    return network
