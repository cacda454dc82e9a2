"""Blocks: the placement of norms in a layer, and whether its branches are sequential or parallel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from insight.models.attention import AttentionModule, CallContext, CrossAttentionModule
from insight.models.checkpointing import Recomputable
from insight.models.checks import require_flags, require_number
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError

MakeNorm = Callable[[], nn.Module]
Branch = Callable[[torch.Tensor, CallContext], torch.Tensor]


class Block(Recomputable):
    """One layer: attention and feed-forward, added to the residual stream.

    Args:
        attention: Mixes tokens.
        feed_forward: Maps each token independently.
        dropout: Probability of dropping a channel of a branch in training.
        branch_scale: Factor of each branch.
        cross_attention: Reads the states of an encoder between the two; ``None`` without an encoder.
    """

    part = "block"

    def __init__(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        dropout: float,
        branch_scale: float = 1.0,
        cross_attention: CrossAttentionModule | None = None,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward
        self.dropout = dropout
        self.branch_scale = branch_scale
        self.cross_attention = cross_attention
        self.feed_forward_counts_tokens = bool(getattr(feed_forward, "counts_tokens", False))

    def forward(self, hidden: torch.Tensor, context: CallContext) -> torch.Tensor:
        """Return the residual stream ``(batch, sequence, hidden_size)`` with this layer's branches added."""
        raise NotImplementedError

    def feed(self, hidden: torch.Tensor, context: CallContext) -> torch.Tensor:
        """Return the output of the feed-forward layer for each token."""
        if self.feed_forward_counts_tokens:
            mapped: torch.Tensor = self.feed_forward(hidden, context.real_tokens)
        else:
            mapped = self.feed_forward(hidden)
        return mapped

    def read(self, hidden: torch.Tensor, context: CallContext) -> torch.Tensor:
        """Return the output of cross-attention, which reads the encoder."""
        states = context.encoder_states
        assert self.cross_attention is not None
        assert states is not None
        found: torch.Tensor = self.cross_attention(hidden, CallContext(states.mask, encoder_states=states))
        return found

    def add(self, hidden: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """Add a branch to the stream, in the dtype of the stream, with dropout in training."""
        if self.training and self.dropout:
            branch = F.dropout(branch, self.dropout)
        if self.branch_scale != 1.0:
            branch = branch * self.branch_scale
        if branch.dtype == hidden.dtype:
            return hidden + branch
        # Under autocast the stream is wider than the branch. On a CPU, adding mixed dtypes takes twice the
        # time of a cast; nothing else uses the result of the cast, so it can hold the sum.
        return branch.to(hidden.dtype).add_(hidden)


class SequentialBlock(Block):
    """Branches in sequence, each with its own norms, ``<branch>_<kind>``; arguments as in :class:`Block`.

    ``make_norm`` makes a norm over the residual stream, and ``norms`` lists the kinds that each branch has.
    """

    norms: ClassVar[tuple[str, ...]] = ("norm",)

    def __init__(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: MakeNorm,
        dropout: float,
        branch_scale: float = 1.0,
        cross_attention: CrossAttentionModule | None = None,
    ) -> None:
        super().__init__(attention, feed_forward, dropout, branch_scale, cross_attention)
        branches = ["attention", "feed_forward"]
        if cross_attention is not None:
            branches.insert(1, "cross_attention")
        for kind in self.norms:
            for branch in branches:
                self.add_module(f"{branch}_{kind}", make_norm())

    def forward(self, hidden: torch.Tensor, context: CallContext) -> torch.Tensor:
        hidden = self.add_branch(hidden, "attention", self.attention, context)
        if self.cross_attention is not None and context.encoder_states is not None:
            hidden = self.add_branch(hidden, "cross_attention", self.read, context)
        return self.add_branch(hidden, "feed_forward", self.feed, context)

    def add_branch(
        self, hidden: torch.Tensor, name: str, branch: Branch, context: CallContext
    ) -> torch.Tensor:
        """Add the branch called ``attention``, ``cross_attention`` or ``feed_forward`` to the stream."""
        raise NotImplementedError

    def norm(self, branch: str, kind: str = "norm") -> nn.Module:
        """Return the norm of a branch, of one of the kinds in :attr:`norms`."""
        norm: nn.Module = getattr(self, f"{branch}_{kind}")
        return norm


class _PreNormBlock(SequentialBlock):
    def add_branch(
        self, hidden: torch.Tensor, name: str, branch: Branch, context: CallContext
    ) -> torch.Tensor:
        return self.add(hidden, branch(self.norm(name)(hidden), context))


class _BranchNormBlock(SequentialBlock):
    def add_branch(
        self, hidden: torch.Tensor, name: str, branch: Branch, context: CallContext
    ) -> torch.Tensor:
        return self.add(hidden, self.norm(name)(branch(hidden, context)))


class _SandwichNormBlock(SequentialBlock):
    norms = ("norm", "output_norm")

    def add_branch(
        self, hidden: torch.Tensor, name: str, branch: Branch, context: CallContext
    ) -> torch.Tensor:
        output = branch(self.norm(name)(hidden), context)
        return self.add(hidden, self.norm(name, "output_norm")(output))


class _PostNormBlock(SequentialBlock):
    def add_branch(
        self, hidden: torch.Tensor, name: str, branch: Branch, context: CallContext
    ) -> torch.Tensor:
        output: torch.Tensor = self.norm(name)(self.add(hidden, branch(hidden, context)))
        return output


class _ParallelBlock(Block):
    def __init__(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        attention_norm: nn.Module,
        feed_forward_norm: nn.Module | None,
        dropout: float,
        branch_scale: float,
    ) -> None:
        super().__init__(attention, feed_forward, dropout, branch_scale)
        self.attention_norm = attention_norm
        self.feed_forward_norm = feed_forward_norm

    def forward(self, hidden: torch.Tensor, context: CallContext) -> torch.Tensor:
        normed = self.attention_norm(hidden)
        mixed = self.attention(normed, context)
        if self.feed_forward_norm is not None:
            normed = self.feed_forward_norm(hidden)
        return self.add(self.add(hidden, mixed), self.feed(normed, context))


@dataclass(frozen=True)
class BlockLayout(Component):
    """The placement of norms in a block, and whether its branches are sequential or parallel.

    Args:
        branch_scale: Factor of what each branch adds to the residual stream (Granite).
    """

    branch_scale: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        require_number(0, 1e6, "use 1 to change nothing", branch_scale=self.branch_scale)

    @abstractmethod
    def build(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: MakeNorm,
        dropout: float,
        cross_attention: CrossAttentionModule | None = None,
    ) -> Block:
        """Build the block of one layer; arguments as in :class:`Block`.

        ``make_norm`` makes a norm over the residual stream and is called once for each norm of the layout.
        """

    @property
    def ends_normed(self) -> bool:
        """Whether the last block leaves the stream normalised, so that the head needs no further norm."""
        return False

    @property
    def takes_encoder_states(self) -> bool:
        """Whether the layout has a place for cross-attention."""
        return True


@dataclass(frozen=True)
class _SequentialLayout(BlockLayout):
    """A layout whose branches are sequential; ``block`` is the class of its blocks."""

    block: ClassVar[type[SequentialBlock]]

    def build(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: MakeNorm,
        dropout: float,
        cross_attention: CrossAttentionModule | None = None,
    ) -> Block:
        return self.block(attention, feed_forward, make_norm, dropout, self.branch_scale, cross_attention)


@dataclass(frozen=True)
class PreNorm(_SequentialLayout):
    """x + attention(norm(x)), then x + feed_forward(norm(x)); training is stable at any depth.

    Xiong et al. 2020, arXiv 2002.04745.
    """

    block = _PreNormBlock


@dataclass(frozen=True)
class SandwichNorm(_SequentialLayout):
    """x + norm(attention(norm(x))), then x + norm(feed_forward(norm(x))).

    Ding et al. 2021, arXiv 2105.13290; Gemma 2.
    """

    block = _SandwichNormBlock


@dataclass(frozen=True)
class BranchNorm(_SequentialLayout):
    """x + norm(attention(x)), then x + norm(feed_forward(x)), which bounds what a branch can add.

    OLMo 2, arXiv 2501.00656.
    """

    block = _BranchNormBlock


@dataclass(frozen=True)
class PostNorm(_SequentialLayout):
    """norm(x + attention(x)), then norm(x + feed_forward(x)); there is no norm before the head.

    The layout of the first transformer, arXiv 1706.03762.
    """

    block = _PostNormBlock

    @property
    def ends_normed(self) -> bool:
        return True


@dataclass(frozen=True)
class ParallelResidual(BlockLayout):
    """x + attention(norm(x)) + feed_forward(norm(x)); there is no place for cross-attention.

    GPT-J 2021; Black et al. 2022, arXiv 2204.06745.

    Args:
        shared_norm: Whether both branches share one norm (Falcon, GPT-J) or have one each (GPT-NeoX).
    """

    shared_norm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_flags(self)

    def build(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: MakeNorm,
        dropout: float,
        cross_attention: CrossAttentionModule | None = None,
    ) -> Block:
        if cross_attention is not None:
            raise ConfigError("ParallelResidual has no place for cross-attention", "use PreNorm or PostNorm")
        # The feed-forward norm is made first: norms that draw random numbers draw them in this order.
        feed_forward_norm = None if self.shared_norm else make_norm()
        return _ParallelBlock(
            attention, feed_forward, make_norm(), feed_forward_norm, dropout, self.branch_scale
        )

    @property
    def takes_encoder_states(self) -> bool:
        return False
