"""What every layout of a block shares."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from insight.models.attention import AttentionModule
from insight.models.caches import LayerCache
from insight.models.masks import Mask
from insight.models.positions.base import PositionTables
from insight.runtime.component import Component


class Block(nn.Module):
    """One layer: attention and feed-forward, added to the residual stream.

    Args:
        attention: Token mixer.
        feed_forward: Map of each token.
        dropout: Probability that a channel of either branch is dropped in training.
    """

    def __init__(self, attention: AttentionModule, feed_forward: nn.Module, dropout: float) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward
        self.dropout = dropout

    def forward(
        self, hidden: torch.Tensor, *, mask: Mask, tables: PositionTables, cache: LayerCache | None = None
    ) -> torch.Tensor:
        """``(batch, sequence, hidden_size)`` to the same; see :meth:`AttentionModule.forward`."""
        raise NotImplementedError

    def drop(self, branch: torch.Tensor) -> torch.Tensor:
        """``branch`` with dropout in training."""
        return F.dropout(branch, self.dropout) if self.training and self.dropout else branch


@dataclass(frozen=True)
class BlockLayout(Component):
    """Where a block normalises, and whether its branches follow one another."""

    @abstractmethod
    def build(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: Callable[[], nn.Module],
        dropout: float,
    ) -> Block:
        """The block of one layer; arguments as in :class:`Block`.

        Args:
            attention: Token mixer.
            feed_forward: Map of each token.
            make_norm: Makes a norm over the residual stream; called once for each that the layout has.
            dropout: Probability of dropping a channel.
        """

    @property
    def ends_normed(self) -> bool:
        """Whether the stream leaves the last block normalised, so that the head needs no further norm."""
        return False


def add(hidden: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    """hidden + branch in the dtype of the residual stream."""
    if branch.dtype == hidden.dtype:
        return hidden + branch
    # Under autocast the stream is wider than the branch. Adding mixed dtypes costs a CPU twice the time of
    # a cast, whose result is nobody else's and can take the sum.
    return branch.to(hidden.dtype).add_(hidden)
