"""A linear map of each group of rows by a matrix of its own, as one operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

# An operation of its own, because a compiler cannot see through slices whose sizes depend on the data.


@torch.library.custom_op("insight::grouped_linear", mutates_args=())
def grouped_linear(rows: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """``rows[start:end] @ weight[group].T`` for every group.

    Args:
        rows: ``(rows, inputs)``, group after group.
        weight: ``(groups, outputs, inputs)``, of the dtype of ``rows``.
        ends: int64 ``(groups,)``: where the rows of each group end; a group may have none.

    Returns:
        ``(rows, outputs)``.
    """
    if has_fused_kernel(rows, weight):
        return fused_products(rows, weight, ends)
    output = rows.new_empty(rows.shape[0], weight.shape[1])
    for group, members in _groups(ends):
        torch.mm(rows[members], weight[group].T, out=output[members])
    return output


@torch.library.custom_op("insight::grouped_linear_backward", mutates_args=())
def grouped_linear_backward(
    gradient: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of ``rows`` and ``weight`` for that of the output of :func:`grouped_linear`."""
    if has_fused_kernel(rows, weight):
        return fused_gradients(gradient, rows, weight, ends)
    rows_gradient, weight_gradient = torch.empty_like(rows), torch.zeros_like(weight)
    for group, members in _groups(ends):
        torch.mm(gradient[members], weight[group], out=rows_gradient[members])
        torch.mm(gradient[members].T, rows[members], out=weight_gradient[group])
    return rows_gradient, weight_gradient


def has_fused_kernel(rows: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether one kernel multiplies all groups: bfloat16 on CUDA, rows of whole 16 bytes."""
    sizes = weight.shape[1:]
    return rows.is_cuda and rows.dtype == torch.bfloat16 and not any(size % 8 for size in sizes)


def fused_products(rows: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """What :func:`grouped_linear` returns, by torch's own grouped product."""
    return F.grouped_mm(rows, weight.mT, offs=ends.int())


def fused_gradients(
    gradient: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What :func:`grouped_linear_backward` returns, by torch's own grouped product."""
    gradient, offsets = gradient.contiguous(), ends.int()
    return F.grouped_mm(gradient, weight, offs=offsets), F.grouped_mm(gradient.mT, rows, offs=offsets)


def _groups(ends: torch.Tensor) -> Iterator[tuple[int, slice]]:
    """Number and rows of every group that has some."""
    start = 0
    for group, end in enumerate(ends.tolist()):
        if end > start:
            yield group, slice(start, end)
        start = end


def _outputs_like(rows: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    return rows.new_empty(rows.shape[0], weight.shape[1])


def _gradients_like(
    gradient: torch.Tensor, rows: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(rows), torch.empty_like(weight)


def _save(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
    rows_gradient, weight_gradient = grouped_linear_backward(gradient, *ctx.saved_tensors)
    return rows_gradient, weight_gradient, None


grouped_linear.register_fake(_outputs_like)
grouped_linear_backward.register_fake(_gradients_like)
grouped_linear.register_autograd(_backward, setup_context=_save)
