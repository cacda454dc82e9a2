"""The interface of a kernel, and the shared part of the kernels that leave the mask to its description."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from insight.models.masks import Attend, Mask
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class ScoreChange:
    """Changes of the scores between the product of queries and keys and the softmax.

    Scores are scaled, then capped, then biased, then masked; sinks take part in the softmax only.

    Args:
        bias: Numbers added to the scores, ``(batch or 1, num_heads, num_queries, num_keys)``.
        soft_cap: Bound c of the scores, c * tanh(scores / c).
        sinks: One more score for each head, ``(num_heads,)``, of a key that has no value.
        dropout: Probability of dropping a weight after the softmax; 0 outside training.
    """

    bias: Tensor | None = None
    soft_cap: float | None = None
    sinks: Tensor | None = None
    dropout: float = 0.0


PLAIN = ScoreChange()


@dataclass(frozen=True)
class Situation:
    """The facts about a call of a :class:`Kernel` that the choice of one depends on.

    Args:
        device: Device of the queries, ``"cpu"`` or ``"cuda"``.
        dtype: Data type of queries, keys and values.
        num_queries: Queries of a row.
        trains: Whether a gradient will be computed.
        mask: As in the call.
        change: As in the call.
        wide_keys: Whether keys have more channels than values, as with ALiBi.
    """

    device: str
    dtype: torch.dtype
    num_queries: int
    trains: bool
    mask: Mask
    change: ScoreChange = PLAIN
    wide_keys: bool = False


class Kernel(ABC):
    """A way to compute attention.

    Attributes:
        name: The kernel's name in the option ``kernel``.
        caps_scores: Whether it can bound the scores.
        drops_weights: Whether it can drop softmax weights.
    """

    name: str
    caps_scores = False
    drops_weights = True

    def describe(self, situation: Situation) -> str:
        """Describe in a few words which kernel computes in a situation and why."""
        return f"{self.name}, as configured"

    @abstractmethod
    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float, change: ScoreChange = PLAIN
    ) -> Tensor:
        """Compute attention, ``(batch, num_heads, num_queries, channels of value)``, or refuse a soft cap.

        Args:
            query: ``(batch, num_heads, num_queries, head_dim)``.
            key: ``(batch, num_key_value_heads, num_keys, head_dim)``; query head ``i`` reads key head
                ``i // (num_heads / num_key_value_heads)``.
            value: Like ``key``, with as many channels or fewer.
            mask: Which keys each query may attend to.
            scale: Factor of the scores, usually ``head_dim ** -0.5``.
            change: Cap, bias, sinks and dropout.
        """


class MaskedKernel(Kernel):
    """A kernel whose calls the mask makes, so that they compute only what is visible."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float, change: ScoreChange = PLAIN
    ) -> Tensor:
        options: dict[str, Any] = {"scale": scale}
        if change.soft_cap is not None:
            if not self.caps_scores:
                problem, remedy = (
                    f"{type(self).__name__} cannot bound the scores",
                    "use kernel: auto or reference",
                )
                raise ConfigError(problem, remedy, option="score_soft_cap", value=change.soft_cap)
            options["soft_cap"] = change.soft_cap
        if change.dropout:
            options["dropout_p"] = change.dropout
        missing = key.shape[-1] - value.shape[-1]
        if missing:
            value = F.pad(value, (0, missing))  # fused kernels need equal sizes
        call: Attend = functools.partial(self.attend, **options)
        if change.sinks is not None:
            call = functools.partial(_attend_with_sinks, call, change.sinks, scale)
        if change.bias is None:
            output = mask.attend(call, query, key, value)
        else:
            allowed = mask.allowed(query.shape[2], key.shape[2], query.device)
            bias = change.bias.to(query.dtype).masked_fill(~allowed, float("-inf"))
            output = call(query, key, value, attn_mask=bias)
        return output[..., : value.shape[-1] - missing] if missing else output

    @abstractmethod
    def attend(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """Compute one call; shapes as in :class:`Kernel`, with values as wide as keys.

        The options are those of torch's ``scaled_dot_product_attention``, and ``soft_cap``; ``scale`` is
        always given.
        """


def _attend_with_sinks(
    attend: Attend,
    sinks: Tensor,
    scale: float,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    is_causal: bool = False,
    attn_mask: Tensor | None = None,
) -> Tensor:
    """Make a kernel's call with a sink ``(num_heads,)`` in every softmax (gpt-oss, arXiv 2508.10925).

    One more channel holds sink / scale in the queries, 1 in a key put before all others and 0 in the other
    keys, so that the score of that key is the sink. If the call is causal, a query is put before the others
    too, so that the triangle still fits.
    """
    channel = (sinks / scale).to(query.dtype)[None, :, None, None]
    query = torch.cat([query, channel.expand(*query.shape[:-1], 1)], dim=-1)
    sink = F.pad(key.new_ones(*key.shape[:2], 1, 1), (key.shape[-1], 0))
    key = torch.cat([sink, F.pad(key, (0, 1))], dim=2)
    value = F.pad(value, (0, 1, 1, 0))
    if is_causal:
        query = F.pad(query, (0, 0, 1, 0))
    if attn_mask is not None:
        attn_mask = F.pad(attn_mask, (1, 0), value=1 if attn_mask.dtype == torch.bool else 0)
    output = attend(query, key, value, is_causal=is_causal, attn_mask=attn_mask)
    return output[:, :, int(is_causal) :, :-1]


def soft_cap(scores: Tensor, bound: float | None) -> Tensor:
    """c * tanh(scores / c): close to the scores where they are small, never beyond the bound c.

    Gemma 2 (arXiv 2408.00118) bounds its attention scores and its logits this way; ``None`` is no bound.
    """
    return scores if bound is None else bound * torch.tanh(scores / bound)
