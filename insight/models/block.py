"""One layer of a decoder: attention and feed-forward, each behind a norm and added to the residual stream."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from insight.models.attention import AttentionModule, Mask
from insight.models.caches import LayerCache
from insight.models.positions.base import PositionTables


class Block(nn.Module):
    """Pre-norm residual block: x + attention(norm(x)), then x + feed_forward(norm(x)).

    Args:
        attention: Token mixer.
        feed_forward: Map of each token.
        attention_norm: Before ``attention``.
        feed_forward_norm: Before ``feed_forward``.
        dropout: Probability that a channel of either branch is dropped in training.
    """

    def __init__(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        attention_norm: nn.Module,
        feed_forward_norm: nn.Module,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward
        self.attention_norm = attention_norm
        self.feed_forward_norm = feed_forward_norm
        self.dropout = dropout

    def forward(
        self, hidden: torch.Tensor, *, mask: Mask, tables: PositionTables, cache: LayerCache | None = None
    ) -> torch.Tensor:
        """``(batch, sequence, hidden_size)`` to the same; see :meth:`AttentionModule.forward`."""
        mixed = self.attention(self.attention_norm(hidden), mask=mask, tables=tables, cache=cache)
        hidden = _add(hidden, self._drop(mixed))
        return _add(hidden, self._drop(self.feed_forward(self.feed_forward_norm(hidden))))

    def _drop(self, branch: torch.Tensor) -> torch.Tensor:
        return F.dropout(branch, self.dropout) if self.training and self.dropout else branch


def _add(hidden: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    """hidden + branch in the dtype of the residual stream."""
    if branch.dtype == hidden.dtype:
        return hidden + branch
    # Under autocast the stream is wider than the branch. Adding mixed dtypes costs a CPU twice the time of
    # a cast, whose result is nobody else's and can take the sum.
    return branch.to(hidden.dtype).add_(hidden)
