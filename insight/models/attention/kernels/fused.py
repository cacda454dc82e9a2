"""Kernels for training: torch's fused attention, and tiles of matrix products for a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from insight.models.attention.kernels.base import MaskedKernel

# Without a triangle nothing is skipped, so the kept weights grow with the whole square.
_MOST_KEYS = 512


class SDPAKernel(MaskedKernel):
    """``scaled_dot_product_attention`` (Dao et al. 2022, arXiv 2205.14135).

    With dropout, torch leaves the flash path on a CPU and holds the scores.
    """

    name = "sdpa"

    def attend(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        if key.shape[1] == 1:
            # One view for all heads: torch's backward of grouped heads gives each key-value head one thread,
            # so a single one leaves the other threads idle (123 against 89 ms measured).
            key, value = (pair.expand(-1, query.shape[1], -1, -1) for pair in (key, value))
        shares_keys = query.shape[1] != key.shape[1]
        return F.scaled_dot_product_attention(query, key, value, enable_gqa=shares_keys, **options)


class TiledKernel(SDPAKernel):
    """Large batched products of tiles of queries with the keys that they may see.

    The backward of torch's fused kernel makes many small products; large batched ones use the matrix units
    of a CPU better, in bfloat16 by far. In return the softmax weights are kept for the backward (half a
    square for each head if causal), and scores are rounded to the dtype of the queries. A causal tile meets
    only the keys before its end, so most of the masked square is skipped. Calls whose mask is learned or
    hides keys of some queries only, or with more keys than :data:`_MOST_KEYS` that are not causal go to the
    fused kernel.
    """

    name = "tiled"

    def attend(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        mask: Tensor | None = options.get("attn_mask")
        is_causal = bool(options.get("is_causal"))
        added, fits = None, is_causal or key.shape[2] <= _MOST_KEYS
        if mask is not None and mask.dtype != torch.bool:
            fits = fits and not mask.requires_grad
            added = mask.expand(query.shape[0], query.shape[1], query.shape[2], -1)
        elif mask is not None:
            fits = fits and mask.shape[1] == mask.shape[2] == 1
            row = query.new_zeros(mask.shape).masked_fill_(~mask, float("-inf"))
            added = row.expand(query.shape[0], key.shape[1], -1, -1)  # one row for all queries
        if not fits or options.get("dropout_p"):
            return super().attend(query, key, value, **options)
        if added is not None:
            added = added.reshape(query.shape[0] * key.shape[1], -1, key.shape[2])
        output: Tensor = _tiled_attention(query, key, value, added, is_causal, options["scale"])[0]
        return output


# These are custom operators so that a compiled network calls them as they are: traced, the writes into
# slices would become copies of whole tensors.
@torch.library.custom_op("insight::tiled_attention", mutates_args=())
def _tiled_attention(
    query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, is_causal: bool, scale: float
) -> tuple[Tensor, list[Tensor]]:
    """Return an output like ``query``, and softmax weights ``(batch * key heads, rows, keys)`` for each tile.

    Heads that share keys are stacked: ``(batch * key heads, group, queries, dim)``. ``added`` is added to the
    scores, ``(batch * key heads, rows or 1, keys)`` in their dtype, and not with ``is_causal``.
    """
    stacks, group, length, dim = _stacked_shape(query, key)
    queries = query.reshape(stacks, group, length, dim)
    keys, values = (x.reshape(stacks, -1, dim) for x in (key, value))
    output = torch.empty_like(queries, memory_format=torch.contiguous_format)
    weights = []
    for start, stop, seen in _tiles(length, key.shape[2], is_causal):
        rows, columns = _rows(queries, start, stop), keys[:, :seen].mT
        if is_causal:
            added = _hidden_triangle(query, key, start, stop)
        if added is None:
            scores = query.new_empty(stacks, rows.shape[1], seen)
            scores.baddbmm_(rows, columns, beta=0, alpha=scale)  # with beta 0 the memory is not read
        else:
            scores = torch.baddbmm(added, rows, columns, alpha=scale)
        weights.append(torch.softmax(scores, dim=-1))
        _write_rows(output, start, stop, weights[-1], values[:, :seen])
    return output.view(query.shape), weights


def _hidden_triangle(query: Tensor, key: Tensor, start: int, stop: int) -> Tensor:
    """Return -inf where a key is hidden and 0 elsewhere, to be broadcast over the scores of a tile."""
    square = query.new_full((stop - start, stop), float("-inf")).triu_(start + 1)
    return square.repeat(query.shape[1] // key.shape[1], 1)


@_tiled_attention.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, is_causal: bool, scale: float
) -> tuple[Tensor, list[Tensor]]:
    stacks, group, length, _ = _stacked_shape(query, key)
    tiles = _tiles(length, key.shape[2], is_causal)
    weights = [query.new_empty(stacks, group * (stop - start), seen) for start, stop, seen in tiles]
    return query.new_empty(query.shape), weights


@torch.library.custom_op("insight::tiled_attention_backward", mutates_args=())
def _tiled_attention_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: list[Tensor],
    is_causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    stacks, group, length, dim = _stacked_shape(query, key)
    queries, gradients = (x.reshape(stacks, group, length, dim) for x in (query, gradient))
    keys, values = (x.reshape(stacks, -1, dim) for x in (key, value))
    query_gradient = torch.empty_like(queries, memory_format=torch.contiguous_format)
    key_gradient, value_gradient = (
        torch.empty_like(x, memory_format=torch.contiguous_format) for x in (keys, values)
    )
    tiles = _tiles(length, key.shape[2], is_causal)
    for (start, stop, seen), weight in reversed(list(zip(tiles, weights, strict=True))):
        rows, row_gradients = _rows(queries, start, stop), _rows(gradients, start, stop)
        weight_gradient = torch.bmm(row_gradients, values[:, :seen].mT)
        score_gradient = torch._softmax_backward_data(weight_gradient, weight, -1, weight.dtype)
        beta = 0 if stop == length else 1  # the last tile is the first here and reaches every key
        value_gradient[:, :seen].baddbmm_(weight.mT, row_gradients, beta=beta)
        key_gradient[:, :seen].baddbmm_(score_gradient.mT, rows, beta=beta, alpha=scale)
        _write_rows(query_gradient, start, stop, score_gradient, keys[:, :seen], scale)
    return query_gradient.view(query.shape), key_gradient.view(key.shape), value_gradient.view(value.shape)


@_tiled_attention_backward.register_fake
def _(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: list[Tensor],
    is_causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, list[Tensor]]) -> None:
    query, key, value, _, ctx.is_causal, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, *output[1])


def _backward(ctx: Any, gradient: Tensor, _: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
    query, key, value, *weights = ctx.saved_tensors
    gradients = _tiled_attention_backward(gradient, query, key, value, weights, ctx.is_causal, ctx.scale)
    return (*gradients, None, None, None)


_tiled_attention.register_autograd(_backward, setup_context=_setup_context)


def _stacked_shape(query: Tensor, key: Tensor) -> tuple[int, int, int, int]:
    batch, num_heads, length, dim = query.shape
    num_key_heads = key.shape[1]
    return batch * num_key_heads, num_heads // num_key_heads, length, dim


def _tiles(num_queries: int, num_keys: int, is_causal: bool) -> list[tuple[int, int, int]]:
    """Start and stop of the queries of each tile, and the number of keys that it meets.

    Small causal tiles skip more of the square, but few tokens need only one.
    """
    if not is_causal:
        return [(0, num_queries, num_keys)]
    size = 128 if num_queries <= 128 else 64
    starts = range(0, num_queries, size)
    return [(start, stop, stop) for start in starts for stop in (min(start + size, num_queries),)]


def _rows(stack: Tensor, start: int, stop: int) -> Tensor:
    """Rows of a tile, with the heads of a group concatenated: ``(stacks, group * rows, dim)``."""
    return stack[:, :, start:stop].reshape(stack.shape[0], -1, stack.shape[-1])


def _write_rows(
    stack: Tensor, start: int, stop: int, left: Tensor, right: Tensor, scale: float = 1.0
) -> None:
    """Write ``left @ right * scale`` where :func:`_rows` reads, in place if those rows are contiguous."""
    stacks, group, length, dim = stack.shape
    if group == 1 or stop - start == length:
        rows = stack[:, :, start:stop].view(stacks, group * (stop - start), dim)
        rows.baddbmm_(left, right, beta=0, alpha=scale)  # with beta 0 the old contents are not read
    else:
        stack[:, :, start:stop] = torch.bmm(left, right).mul_(scale).view(stacks, group, stop - start, dim)
