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
from insight.runtime.errors import ConfigError

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


class _PreNormBlock(SequentialBlock):
    def add_branch(self, hidden: torch.Tensor, name: str, branch: Branch) -> torch.Tensor:
        return add(hidden, self.drop(branch(self.norm(name)(hidden))))


@dataclass(frozen=True)
class PreNorm(_SequentialLayout):
    """x + attention(norm(x)), then x + feed_forward(norm(x)): trains stably at any depth."""

    block = _PreNormBlock


class _SandwichNormBlock(SequentialBlock):
    norms = ("norm", "output_norm")

    def add_branch(self, hidden: torch.Tensor, name: str, branch: Branch) -> torch.Tensor:
        output = branch(self.norm(name)(hidden))
        return add(hidden, self.drop(self.norm(name, "output_norm")(output)))


@dataclass(frozen=True)
class SandwichNorm(_SequentialLayout):
    """x + norm(attention(norm(x))), then x + norm(feed_forward(norm(x)))."""

    block = _SandwichNormBlock


class _BranchNormBlock(SequentialBlock):
    def add_branch(self, hidden: torch.Tensor, name: str, branch: Branch) -> torch.Tensor:
        return add(hidden, self.drop(self.norm(name)(branch(hidden))))


@dataclass(frozen=True)
class BranchNorm(_SequentialLayout):
    """x + norm(attention(x)), then x + norm(feed_forward(x)): bounds what a branch can add."""

    block = _BranchNormBlock


class _PostNormBlock(SequentialBlock):
    def add_branch(self, hidden: torch.Tensor, name: str, branch: Branch) -> torch.Tensor:
        output: torch.Tensor = self.norm(name)(add(hidden, self.drop(branch(hidden))))
        return output


@dataclass(frozen=True)
class PostNorm(_SequentialLayout):
    """norm(x + attention(x)), then norm(x + feed_forward(x)); there is no norm before the head."""

    block = _PostNormBlock

    @property
    def ends_normed(self) -> bool:
        return True


@dataclass(frozen=True)
class ParallelResidual(BlockLayout):
    """x + attention(norm(x)) + feed_forward(norm(x)); there is no place for cross-attention.

    Args:
        shared_norm: Whether both branches read one norm (Falcon, GPT-J) or each its own (GPT-NeoX).
    """

    shared_norm: bool = False

    def build(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: Callable[[], nn.Module],
        dropout: float,
        cross_attention: CrossAttentionModule | None = None,
    ) -> Block:
        if cross_attention is not None:
            raise ConfigError("ParallelResidual has no place for cross-attention", "use PreNorm or PostNorm")
        feed_forward_norm = None if self.shared_norm else make_norm()
        return _ParallelBlock(attention, feed_forward, make_norm(), feed_forward_norm, dropout)

    @property
    def takes_memory(self) -> bool:
        return False


class _ParallelBlock(Block):
    def __init__(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        attention_norm: nn.Module,
        feed_forward_norm: nn.Module | None,
        dropout: float,
    ) -> None:
        super().__init__(attention, feed_forward, dropout)
        self.attention_norm = attention_norm
        self.feed_forward_norm = feed_forward_norm

    def forward(
        self,
        hidden: torch.Tensor,
        *,
        mask: Mask,
        tables: PositionTables,
        cache: LayerCache | None = None,
        memory: Memory | CrossCache | None = None,
    ) -> torch.Tensor:
        normed = self.attention_norm(hidden)
        mixed = self.attention(normed, mask=mask, tables=tables, cache=cache)
        if self.feed_forward_norm is not None:
            normed = self.feed_forward_norm(hidden)
        return add(add(hidden, self.drop(mixed)), self.drop(self.feed_forward(normed)))
