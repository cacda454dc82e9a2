"""The norm of all gradients together, clipping and dropping: exact also where each process holds a part."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from insight.runtime.sharded_tensors import local, whole


def gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """Euclidean norm of all gradients together: a scalar, the same on every process.

    Every process that holds a part of them must ask at the same time.
    """
    by_mesh: dict[object, list[torch.Tensor]] = {}  # what lies on different meshes cannot be stacked
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None:
            mesh = gradient.device_mesh if isinstance(gradient, DTensor) else None
            by_mesh.setdefault(mesh, []).append(gradient)
    norms = [whole(nn.utils.get_total_norm(gradients)) for gradients in by_mesh.values()]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


@torch.no_grad()
def scale_gradients(parameters: Iterable[nn.Parameter], factor: torch.Tensor) -> None:
    """Multiply all gradients by a scalar."""
    torch._foreach_mul_([local(p.grad) for p in parameters if p.grad is not None], factor)


def drop_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Forget all gradients: an optimizer leaves weights without a gradient, and its state of them, alone."""
    for parameter in parameters:
        parameter.grad = None


@torch.no_grad()
def clip_to_norm(parameters: Iterable[nn.Parameter], limit: float, norm: torch.Tensor) -> None:
    """Shorten all gradients by one factor where their norm is above ``limit``, to just that.

    Args:
        parameters: Whose gradients.
        limit: The greatest norm.
        norm: What :func:`gradient_norm` says of them.
    """
    # Where looking is free, gradients within the limit are spared a pass of multiplying by 1.
    if norm.device.type != "cpu" or norm > limit:
        scale_gradients(parameters, (limit / (norm + 1e-6)).clamp_max(1.0))


@torch.no_grad()
def clip_to_value(parameters: Iterable[nn.Parameter], limit: float) -> None:
    """Bring every number of every gradient into ``[-limit, limit]``."""
    gradients = [local(p.grad) for p in parameters if p.grad is not None]
    torch._foreach_clamp_min_(gradients, -limit)
    torch._foreach_clamp_max_(gradients, limit)
