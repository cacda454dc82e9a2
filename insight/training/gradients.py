"""The norm of all gradients, scaling, clipping and dropping, also exact for sharded gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from insight.runtime.sharded_tensors import local


def gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """Euclidean norm of all gradients together: a scalar, the same on every process.

    Every process that holds a part of the gradients must call this at the same time.
    """
    by_cut: dict[tuple[DeviceMesh, tuple[int, ...]] | None, list[torch.Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_cut.setdefault(_cut(parameter.grad), []).append(local(parameter.grad))
    norms = [_over_parts(nn.utils.get_total_norm(parts), cut) for cut, parts in by_cut.items()]
    if len(norms) == 1:
        return norms[0]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def _cut(tensor: torch.Tensor) -> tuple[DeviceMesh, tuple[int, ...]] | None:
    """The mesh that a tensor is sharded over, and the mesh's sharding dimensions; ``None`` if it is whole."""
    if not isinstance(tensor, DTensor):
        return None
    placements = enumerate(tensor.placements)
    return tensor.device_mesh, tuple(dim for dim, placement in placements if not placement.is_replicate())


def _over_parts(norm: torch.Tensor, cut: tuple[DeviceMesh, tuple[int, ...]] | None) -> torch.Tensor:
    """The norm over all processes, computed from the norm of this process's part."""
    if cut is None:
        return norm
    mesh, dims = cut
    square = norm.to(torch.promote_types(norm.dtype, torch.float32)).square()
    for dim in dims:
        distributed.all_reduce(square, group=mesh.get_group(dim))
    return square.sqrt()


@torch.no_grad()
def scale_gradients(parameters: Iterable[nn.Parameter], factor: torch.Tensor) -> None:
    """Multiply all gradients by a scalar."""
    torch._foreach_mul_([local(p.grad) for p in parameters if p.grad is not None], factor)


def drop_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Drop all gradients: an optimizer does not change weights without a gradient, nor their state."""
    for parameter in parameters:
        parameter.grad = None


@torch.no_grad()
def clip_to_norm(parameters: Iterable[nn.Parameter], limit: float, norm: torch.Tensor) -> None:
    """Scale all gradients so that their ``norm``, from :func:`gradient_norm`, is at most ``limit``."""
    # On a CPU the comparison is free and saves a multiplication by 1.
    if norm.device.type != "cpu" or norm > limit:
        scale_gradients(parameters, (limit / (norm + 1e-6)).clamp_max(1.0))


@torch.no_grad()
def clip_to_value(parameters: Iterable[nn.Parameter], limit: float) -> None:
    """Clamp every element of every gradient to ``[-limit, limit]``."""
    gradients = [local(p.grad) for p in parameters if p.grad is not None]
    torch._foreach_clamp_min_(gradients, -limit)
    torch._foreach_clamp_max_(gradients, limit)
