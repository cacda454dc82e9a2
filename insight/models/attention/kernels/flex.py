"""torch's FlexAttention: any mask and change of scores, compiled into one fused kernel on CUDA."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from insight.models.attention.kernels.base import PLAIN, Kernel, ScoreChange, soft_cap
from insight.models.masks import BidirectionalMask, CausalMask, Mask
from insight.runtime.errors import ConfigError

Index = Tensor
"""A scalar index that FlexAttention passes to masks and changes of scores."""


class FlexKernel(Kernel):
    """``flex_attention`` (Dong et al. 2024, arXiv 2412.05496) with the mask's own description.

    Hidden blocks of 128 x 128 scores are skipped, no mask is written out, and caps and biases are computed
    inside the kernel. On a CPU it holds the scores and has no gradient, so it serves only for checks there.
    """

    name = "flex"
    caps_scores = True
    drops_weights = False

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float, change: ScoreChange = PLAIN
    ) -> Tensor:
        """Compute attention; on a CPU a gradient is refused."""
        if query.device.type == "cpu":
            _refuse_gradients(query, key, value, change.bias, change.sinks)
            query, key, value = query.detach(), key.detach(), value.detach()
        from torch.nn.attention.flex_attention import AuxRequest

        output, sums = _attention(query.device.type)(
            query,
            key,
            value,
            score_mod=_score_change(change, torch.promote_types(query.dtype, torch.float32)),
            block_mask=_block_mask(mask, query.shape[2], key.shape[2], query.device),
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
            return_aux=AuxRequest(lse=change.sinks is not None),
        )
        result: Tensor = output
        if change.sinks is None:
            return result
        # The sink adds exp(sink) to the sum of a row, which divides the output by 1 + exp(sink - log sum).
        share = torch.sigmoid(sums.lse - change.sinks.to(sums.lse.dtype)[None, :, None])
        return result * share.unsqueeze(-1).to(result.dtype)


def _refuse_gradients(*tensors: Tensor | None) -> None:
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        problem, remedy = "FlexAttention computes no gradients on a CPU", "use kernel: auto, or train on CUDA"
        raise ConfigError(problem, remedy, option="kernel", value="flex")


def _attention(device: str) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    if torch.compiler.is_compiling():  # a part of the network's own graph
        return flex_attention
    return _compiled(flex_attention) if device == "cuda" else _uncompiled


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=False)


def _uncompiled(*arguments: Any, **options: Any) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning that it is slow uncompiled, as the docstring says
        return flex_attention(*arguments, **options)


def _score_change(change: ScoreChange, dtype: torch.dtype) -> Callable[..., Tensor] | None:
    if change.soft_cap is None and change.bias is None:
        return None
    bias = None if change.bias is None else change.bias.to(dtype)

    def changed(score: Tensor, row: Index, head: Index, query: Index, key: Index) -> Tensor:
        score = soft_cap(score, change.soft_cap)
        return score if bias is None else score + bias[row % bias.shape[0], head, query, key]

    return changed


def _block_mask(mask: Mask, num_queries: int, num_keys: int, device: torch.device) -> Any:
    if isinstance(mask, (CausalMask, BidirectionalMask)) and not torch.compiler.is_compiling():
        return _kept_block_mask(mask, num_queries, num_keys, device)
    return _new_block_mask(mask, num_queries, num_keys, device)


@functools.lru_cache(maxsize=32)
def _kept_block_mask(mask: Mask, num_queries: int, num_keys: int, device: torch.device) -> Any:
    """Keep the block masks of masks made of numbers alone, which are equal in every layer and step."""
    with torch.inference_mode(mode=False):  # a mask made in inference mode could not be used in training
        return _new_block_mask(mask, num_queries, num_keys, device)


def _new_block_mask(mask: Mask, num_queries: int, num_keys: int, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(row: Index, head: Index, query: Index, key: Index) -> Tensor:
        return mask.visible(row, query, key, num_keys - num_queries)

    # The compiled function finds the blocks without writing the mask out.
    compiled = device.type == "cuda" and not torch.compiler.is_compiling()
    make: Callable[..., Any] = _compiled(create_block_mask) if compiled else create_block_mask
    return make(visible, mask.num_rows, None, num_queries, num_keys, device=device)
