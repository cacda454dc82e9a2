"""What every layout of a block shares."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from insight.models.attention import AttentionModule, CrossAttentionModule
from insight.models.caches import CrossCache, LayerCache, Memory
from insight.models.checkpointing import Recomputable
from insight.models.masks import Mask
from insight.models.positions.base import PositionTables
from insight.runtime.component import Component

Branch = Callable[[torch.Tensor], torch.Tensor]


class Block(Recomputable):
    """One layer: attention and feed-forward, added to the residual stream.

    Args:
        attention: Token mixer.
        feed_forward: Map of each token.
        dropout: Probability that a channel of either branch is dropped in training.
        cross_attention: What reads the memory of an encoder, between the two; ``None`` for nothing.
    """

    part = "block"

    def __init__(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        dropout: float,
        cross_attention: CrossAttentionModule | None = None,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward
        self.dropout = dropout
        self.cross_attention = cross_attention

    def forward(
        self,
        hidden: torch.Tensor,
        *,
        mask: Mask,
        tables: PositionTables,
        cache: LayerCache | None = None,
        memory: Memory | CrossCache | None = None,
    ) -> torch.Tensor:
        """``(batch, sequence, hidden_size)`` to the same; see :meth:`AttentionModule.forward`.

        Args:
            hidden: The residual stream.
            mask: As there, of the sequence itself.
            tables: As there.
            cache: As there.
            memory: What cross-attention reads.
        """
        raise NotImplementedError

    def drop(self, branch: torch.Tensor) -> torch.Tensor:
        """``branch`` with dropout in training."""
        return F.dropout(branch, self.dropout) if self.training and self.dropout else branch


class SequentialBlock(Block):
    """Branches that follow one another, each with a norm of its own, ``<branch>_norm``.

    Args:
        attention: As in :class:`Block`.
        feed_forward: As in :class:`Block`.
        make_norm: Makes a norm over the residual stream.
        dropout: As in :class:`Block`.
        cross_attention: As in :class:`Block`.

    Attributes:
        norms: Kinds of norms that each branch has.
    """

    norms: ClassVar[tuple[str, ...]] = ("norm",)

    def __init__(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: Callable[[], nn.Module],
        dropout: float,
        cross_attention: CrossAttentionModule | None = None,
    ) -> None:
        super().__init__(attention, feed_forward, dropout, cross_attention)
        self.branches = ["attention", "feed_forward"]
        if cross_attention is not None:
            self.branches.insert(1, "cross_attention")
        for kind in self.norms:
            for branch in self.branches:
                self.add_module(f"{branch}_{kind}", make_norm())

    def forward(
        self,
        hidden: torch.Tensor,
        *,
        mask: Mask,
        tables: PositionTables,
        cache: LayerCache | None = None,
        memory: Memory | CrossCache | None = None,
    ) -> torch.Tensor:
        attend = functools.partial(self.attention, mask=mask, tables=tables, cache=cache)
        hidden = self.add_branch(hidden, "attention", attend)
        if self.cross_attention is not None and memory is not None:
            read = functools.partial(self.cross_attention, mask=memory.mask, tables=(), memory=memory)
            hidden = self.add_branch(hidden, "cross_attention", read)
        return self.add_branch(hidden, "feed_forward", self.feed_forward)

    def add_branch(self, hidden: torch.Tensor, name: str, branch: Branch) -> torch.Tensor:
        """The stream with one branch more.

        Args:
            hidden: The residual stream.
            name: Of the branch: ``attention``, ``cross_attention`` or ``feed_forward``.
            branch: The branch itself.
        """
        raise NotImplementedError

    def norm(self, branch: str, kind: str = "norm") -> nn.Module:
        """The norm of a branch, of one of the kinds in :attr:`norms`."""
        norm: nn.Module = getattr(self, f"{branch}_{kind}")
        return norm


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
        cross_attention: CrossAttentionModule | None = None,
    ) -> Block:
        """The block of one layer; arguments as in :class:`Block`.

        Args:
            attention: Token mixer.
            feed_forward: Map of each token.
            make_norm: Makes a norm over the residual stream; called once for each that the layout has.
            dropout: Probability of dropping a channel.
            cross_attention: What reads the memory of an encoder; ``None`` for nothing.
        """

    @property
    def ends_normed(self) -> bool:
        """Whether the stream leaves the last block normalised, so that the head needs no further norm."""
        return False

    @property
    def takes_memory(self) -> bool:
        """Whether there is a place for cross-attention."""
        return True


@dataclass(frozen=True)
class _SequentialLayout(BlockLayout):
    """A layout whose branches follow one another.

    Attributes:
        block: What a kind builds.
    """

    block: ClassVar[type[SequentialBlock]]

    def build(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: Callable[[], nn.Module],
        dropout: float,
        cross_attention: CrossAttentionModule | None = None,
    ) -> Block:
        return self.block(attention, feed_forward, make_norm, dropout, cross_attention)


def add(hidden: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    """hidden + branch in the dtype of the residual stream."""
    if branch.dtype == hidden.dtype:
        return hidden + branch
    # Under autocast the stream is wider than the branch. Adding mixed dtypes costs a CPU twice the time of
    # a cast, whose result is nobody else's and can take the sum.
    return branch.to(hidden.dtype).add_(hidden)
