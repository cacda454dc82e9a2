"""Tensors that are split over processes: the whole tensor, the part of this process, and back."""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: torch.Tensor, row_order: torch.Tensor | None = None) -> torch.Tensor:
    """The whole tensor; every process that holds a part of it must call this at the same time.

    Args:
        tensor: A tensor that may be split over processes.
        row_order: The order in which its rows are stored; the result has them in their original order.
    """
    gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return gathered if row_order is None else gathered[row_order.argsort().to(gathered.device)]


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part that this process holds, in the same memory: writing to it changes ``tensor``."""
    if isinstance(tensor, DTensor):
        part: torch.Tensor = tensor.to_local()
        return part
    return tensor


def part_like(
    tensor: torch.Tensor, like: torch.Tensor, row_order: torch.Tensor | None = None
) -> torch.Tensor:
    """A whole tensor split as ``like`` is, on its device.

    Every process has the whole, so nothing is sent. The part is a copy, so that the whole can be freed.

    Args:
        tensor: The whole tensor.
        like: A tensor that may be split over processes.
        row_order: The order in which to store the rows before the tensor is split.
    """
    if row_order is not None:
        tensor = tensor[row_order.to(tensor.device)]
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    placed = distribute_tensor(
        tensor.detach().to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )
    part: torch.Tensor = placed.clone()
    return part
