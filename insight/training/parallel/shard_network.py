"""Cuts a network over processes, so that each holds only a part of weights, gradients and optimizer state."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from insight.models import Decoder
from insight.runtime.errors import ConfigError
from insight.training.parallel.tensor_parallel import share_matrices


def shard_network(network: Decoder, mesh: DeviceMesh, precision: str) -> None:
    """Cut every parameter along its first dimension over the processes of ``mesh["data_parallel"]``.

    Fully sharded data parallelism (Rajbhandari et al. 2020, arXiv 1910.02054, stage 3; Zhao et al. 2023,
    arXiv 2304.11277) in torch's second form: a block's weights are gathered right before it runs, forward
    and backward, and dropped after it; its gradient is averaged over the processes and only the own part
    kept. Embedding, last norm and head are gathered once a step. Where ``mesh["tensor_parallel"]`` has
    several processes, they share the matrices of every block first.

    Args:
        network: Whole, on the meta device.
        mesh: Of all processes, with the dimensions ``data_parallel`` and ``tensor_parallel``.
        precision: Lightning's name. Under ``bf16-mixed`` the blocks are gathered in bfloat16; gradients of
            narrow types are averaged in float32.

    Raises:
        ConfigError: The network has parameters that cannot be cut.
    """
    _check(network)
    if mesh["tensor_parallel"].size() > 1:
        share_matrices(network, mesh["tensor_parallel"])
    reduce_dtype = torch.float32 if precision.startswith(("bf16", "16")) else None
    # The residual stream keeps its width: nothing that a block is given is cast.
    outer = MixedPrecisionPolicy(reduce_dtype=reduce_dtype, cast_forward_inputs=False)
    inner = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if precision == "bf16-mixed" else None,
        reduce_dtype=reduce_dtype,
        cast_forward_inputs=False,
    )
    replicas = mesh["data_parallel"]
    for block in network.layers():
        fully_shard(block, mesh=replicas, mp_policy=inner)
    # The loss reads the head's matrix after the forward pass, so that stays gathered until the backward.
    fully_shard(network, mesh=replicas, mp_policy=outer, reshard_after_forward=False)


def is_sharded(network: nn.Module) -> bool:
    """Whether each process holds only a part of the network, so that all must run it together."""
    return isinstance(network, FSDPModule)


def drop_gathered(network: nn.Module) -> None:
    """Free what a forward pass without a backward pass has left gathered."""
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _check(network: Decoder) -> None:
    owners: dict[nn.Parameter, str] = {}
    for index, block in enumerate(network.layers()):
        for name, parameter in block.named_parameters():
            if owners.setdefault(parameter, f"blocks.{index}") != f"blocks.{index}":
                raise ConfigError(
                    f"strategy fsdp2: {name} is shared by {owners[parameter]} and blocks.{index}",
                    "use --trainer.strategy ddp, or positions without weights such as Rope",
                )
