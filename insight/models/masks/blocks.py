"""Sliding windows in blocks: the cost of a band instead of the whole square."""

from __future__ import annotations

from typing import Any

import torch

from insight.models.masks.base import Attend, Mask

# Smaller blocks compute less beside the band but call the kernel more often.
_SMALLEST_BLOCK = 64
_BLOCKS_A_WINDOW = 2

Range = tuple[int, int]
"""First index and the one after the last."""


def attend_in_blocks(
    attend: Attend,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: Mask,
    before: int,
    after: int,
) -> torch.Tensor:
    """Attention under a mask that is a band: a block of queries at a time meets only the keys near it.

    Args:
        attend: A kernel's call.
        query: ``(batch, num_heads, num_queries, head_dim)``.
        key: ``(batch, num_key_value_heads, num_keys, head_dim)``, at least as many as queries.
        value: Like ``key``.
        mask: The same for all rows and anywhere in the sequence.
        before: Keys that it shows before the query's own, at most.
        after: Keys that it shows after it, at most.
    """
    num_queries, num_keys = query.shape[2], key.shape[2]
    offset = num_keys - num_queries
    blocks = _blocks(num_queries, before + 1 + after)
    near = [(max(0, a + offset - before), min(num_keys, b + offset + after)) for a, b in blocks]
    bands: dict[tuple[int, int, int], torch.Tensor] = {}
    outputs = []
    queries = torch.split(query, [stop - start for start, stop in blocks], dim=2)
    for (start, stop), (first, last), *tensors in zip(
        blocks, near, queries, _slices(key, near), _slices(value, near), strict=True
    ):
        shape = (stop - start, last - first, start + offset - first)
        if shape[0] == shape[1] <= before + 1 and not after:
            outputs.append(attend(*tensors, causal=True))
            continue
        if shape not in bands:
            bands[shape] = _band(mask, shape, query.device)
        outputs.append(attend(*tensors, allowed=bands[shape]))
    return torch.cat(outputs, dim=2)


def _blocks(num_queries: int, width: int) -> list[Range]:
    size = max(_SMALLEST_BLOCK, width // _BLOCKS_A_WINDOW)
    return [(start, min(start + size, num_queries)) for start in range(0, num_queries, size)]


def _band(mask: Mask, shape: tuple[int, int, int], device: torch.device) -> torch.Tensor:
    """The mask of a block, ``(1, 1, queries, keys)``; the first query stands at key ``shape[2]``."""
    num_queries, num_keys, offset = shape
    row, queries = torch.zeros((), dtype=torch.int64, device=device), torch.arange(num_queries, device=device)
    return mask.visible(row, queries[:, None], torch.arange(num_keys, device=device), offset)[None, None]


def _slices(tensor: torch.Tensor, ranges: list[Range]) -> tuple[torch.Tensor, ...]:
    """Parts of the tokens, which may overlap."""
    if torch.compiler.is_compiling():
        return tuple(tensor[:, :, first:last] for first, last in ranges)
    slices: tuple[torch.Tensor, ...] = _Slices.apply(tensor, ranges)  # type: ignore[no-untyped-call]
    return slices


class _Slices(torch.autograd.Function):
    """Views whose gradients are added up in one tensor: each slice's own would be a zero-filled whole."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, ranges: list[Range]) -> tuple[torch.Tensor, ...]:
        ctx.shape, ctx.ranges = tensor.shape, ranges
        return tuple(tensor[:, :, first:last] for first, last in ranges)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        whole = gradients[0].new_zeros(ctx.shape)
        for (first, last), gradient in zip(ctx.ranges, gradients, strict=True):
            whole[:, :, first:last] += gradient
        return whole, None
