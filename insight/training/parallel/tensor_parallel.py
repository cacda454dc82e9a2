"""Tensor parallelism: processes that share the matrices of every block, each with some heads and channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from insight.models import Decoder
from insight.models.attention import AttentionModule
from insight.models.attention.grouped_query import GroupedQueryModule
from insight.models.linear import Projection
from insight.runtime.errors import ConfigError


def share_matrices(network: Decoder, mesh: DeviceMesh) -> None:
    """Let each process of a mesh do its share of every block.

    Shoeybi et al. 2019, arXiv 1909.08053 (Megatron-LM): what makes queries, keys and values (or gate and up)
    is cut by rows, what reads them by columns, so that a branch needs one sum over the processes forward and
    one backward. Embedding, norms and head stay whole.

    Args:
        network: On the meta device: whoever gives it values lays rows in ``row_order`` first.
        mesh: Of one dimension.

    Raises:
        ConfigError: A block cannot be shared so.
    """
    size = mesh.size()
    for index, block in enumerate(network.layers()):
        attention = _checked(block.attention, size)
        pairs = [
            (attention.query_key_value, attention.output),
            _feed_forward_pair(block.feed_forward, index),
        ]
        for first, _ in pairs:
            _check_rows(first, size)
        for first, second in pairs:
            _share(first, second, mesh)
        attention.num_heads //= size
        attention.num_key_value_heads //= size


def rows_by_process(splits: Sequence[int], size: int) -> torch.Tensor:
    """Order in which rows are laid so that equal cuts give every process its part of each fused matrix.

    Args:
        splits: Rows of the matrices that lie one below the other.
        size: Processes; divides each.
    """
    numbers = torch.split(torch.arange(sum(splits)), list(splits))
    return torch.cat([part.chunk(size)[process] for process in range(size) for part in numbers])


def _share(first: Projection, second: Projection, mesh: DeviceMesh) -> None:
    first.row_order = rows_by_process(first.splits, mesh.size())
    parallelize_module(first, mesh, ColwiseParallel(), src_data_rank=None)
    parallelize_module(second, mesh, RowwiseParallel(), src_data_rank=None)


def _checked(attention: AttentionModule, size: int) -> GroupedQueryModule:
    if type(attention) is not GroupedQueryModule:  # heads of a subclass may depend on one another
        raise _refused(type(attention).__name__.removesuffix("Module"), "use GroupedQueryAttention")
    for name, heads in (
        ("num_heads", attention.num_heads),
        ("num_key_value_heads", attention.num_key_value_heads),
    ):
        if heads % size:
            raise ConfigError(
                f"tensor_parallel_size={size}: does not divide {name}={heads}",
                "use a divisor of both numbers of heads, or 1",
            )
    if attention.position.has_bias or attention.position.extra_channels:
        raise _refused(f"{type(attention.position).__name__} (scores by head)", "use Rope")
    if attention.sinks is not None or attention.gate is not None:
        raise _refused("attention with sinks or output_gate", "switch them off")
    for norm in (attention.query_norm, attention.key_norm):
        if any(True for _ in norm.parameters()) or any(True for _ in norm.children()):
            raise _refused("qk_norm with factors or over all heads", "use rms_weightless or none")
    return attention


def _check_rows(projection: Projection, size: int) -> None:
    for rows in projection.splits:
        if rows % size:
            raise ConfigError(
                f"tensor_parallel_size={size}: does not divide the {rows} channels inside a branch",
                "use a divisor of them, or 1",
            )


def _feed_forward_pair(feed_forward: nn.Module, index: int) -> tuple[Projection, Projection]:
    first = getattr(feed_forward, "gate_up", None) or getattr(feed_forward, "up", None)
    second = getattr(feed_forward, "down", None)
    if not (isinstance(first, Projection) and isinstance(second, Projection)):
        raise _refused(f"the feed-forward layer of block {index}", "use SwiGLU, GeGLU or MLP")
    return first, second


def _refused(what: str, remedy: str) -> ConfigError:
    return ConfigError(
        f"tensor_parallel_size above 1: cannot share {what}", f"{remedy}, or --trainer.strategy fsdp2"
    )
