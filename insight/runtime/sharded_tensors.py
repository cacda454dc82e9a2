"""Tensors of which each process holds a part: the whole of them, the part of this process, and back."""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor; every process that holds a part of it must ask at the same time."""
    if isinstance(tensor, DTensor):
        gathered: torch.Tensor = tensor.full_tensor()
        return gathered
    return tensor


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part that this process holds, in the same memory: what is written to it is written to ``tensor``."""
    if isinstance(tensor, DTensor):
        part: torch.Tensor = tensor.to_local()
        return part
    return tensor


def part_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor cut as ``like`` is, on its device.

    Every process has the whole, so nothing is sent. What is cut is copied, so that the whole can be freed.
    """
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    placed = distribute_tensor(
        tensor.detach().to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )
    part: torch.Tensor = placed.clone()
    return part
