"""Blocks: the placement of norms in a layer, and whether its branches are sequential or parallel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from insight.models.attention import AttentionModule, CallContext, CrossAttentionModule
from insight.models.checkpointing import Recomputable
from insight.models.checks import require_flags, require_number
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError

MakeNorm = Callable[[], nn.Module]
Order = Literal["pre", "sandwich", "branch", "post"]


class Block(Recomputable):
    """One layer: attention and feed-forward, added to the stream ``(batch, sequence, hidden_size)``.

    Args:
        attention: Mixes tokens.
        feed_forward: Maps each token independently.
        dropout: Probability of dropping a channel of a branch in training.
        branch_scale: Factor of each branch.
        cross_attention: Reads the states of an encoder between the two; ``None`` without an encoder.
        norms: Norms over the stream by the names of their attributes.
    """

    part = "block"

    def __init__(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        dropout: float,
        branch_scale: float = 1.0,
        cross_attention: CrossAttentionModule | None = None,
        norms: Mapping[str, nn.Module | None] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward
        self.dropout = dropout
        self.branch_scale = branch_scale
        self.cross_attention = cross_attention
        self.feed_forward_counts_tokens = bool(getattr(feed_forward, "counts_tokens", False))
        for name, norm in norms.items():
            self.add_module(name, norm)

    def feed(self, hidden: Tensor, context: CallContext) -> Tensor:
        """Return the output of the feed-forward layer for each token."""
        counted = (context.real_tokens,) if self.feed_forward_counts_tokens else ()
        mapped: Tensor = self.feed_forward(hidden, *counted)
        return mapped

    def add(self, hidden: Tensor, branch: Tensor) -> Tensor:
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


class _SequentialBlock(Block):
    """Branches in sequence, each with ``<branch>_norm`` and in a sandwich ``<branch>_output_norm``."""

    def __init__(self, order: Order, *parts: Any) -> None:
        super().__init__(*parts)
        self.order = order

    def forward(self, hidden: Tensor, context: CallContext) -> Tensor:
        hidden = self._add_branch(hidden, "attention", self.attention, context)
        if self.cross_attention is not None and context.encoder_states is not None:
            hidden = self._add_branch(hidden, "cross_attention", self._read, context)
        return self._add_branch(hidden, "feed_forward", self.feed, context)

    def _read(self, hidden: Tensor, context: CallContext) -> Tensor:
        states = context.encoder_states
        assert self.cross_attention is not None
        assert states is not None
        reading = CallContext(states.mask, encoder_states=states, position_ids=context.position_ids)
        found: Tensor = self.cross_attention(hidden, reading)
        return found

    def _add_branch(
        self, hidden: Tensor, name: str, branch: Callable[[Tensor, CallContext], Tensor], context: CallContext
    ) -> Tensor:
        norm = getattr(self, f"{name}_norm")
        if self.order == "post":
            normed: Tensor = norm(self.add(hidden, branch(hidden, context)))
            return normed
        if self.order == "branch":
            return self.add(hidden, norm(branch(hidden, context)))
        output = branch(norm(hidden), context)
        if self.order == "sandwich":
            output = getattr(self, f"{name}_output_norm")(output)
        return self.add(hidden, output)


class _ParallelBlock(Block):
    """Both branches read the same stream; a ``feed_forward_norm`` of ``None`` shares ``attention_norm``."""

    attention_norm: nn.Module
    feed_forward_norm: nn.Module | None

    def forward(self, hidden: Tensor, context: CallContext) -> Tensor:
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
    ends_normed: ClassVar[bool] = False
    """Whether the last block leaves the stream normalised, so that the head needs no further norm."""
    takes_encoder_states: ClassVar[bool] = True
    """Whether the layout has a place for cross-attention."""

    def __post_init__(self) -> None:
        require_number(0, 1e6, "use 1 to change nothing", branch_scale=self.branch_scale)
        require_flags(self)

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


@dataclass(frozen=True)
class _SequentialLayout(BlockLayout):
    order: ClassVar[Order]

    def build(
        self,
        attention: AttentionModule,
        feed_forward: nn.Module,
        make_norm: MakeNorm,
        dropout: float,
        cross_attention: CrossAttentionModule | None = None,
    ) -> Block:
        branches = ["attention", *(["cross_attention"] if cross_attention else []), "feed_forward"]
        kinds = ["norm", "output_norm"] if self.order == "sandwich" else ["norm"]
        norms = {f"{branch}_{kind}": make_norm() for kind in kinds for branch in branches}
        return _SequentialBlock(
            self.order, attention, feed_forward, dropout, self.branch_scale, cross_attention, norms
        )


@dataclass(frozen=True)
class PreNorm(_SequentialLayout):
    """x + attention(norm(x)), then x + feed_forward(norm(x)); training is stable at any depth.

    Xiong et al. 2020, arXiv 2002.04745.
    """

    order = "pre"


@dataclass(frozen=True)
class SandwichNorm(_SequentialLayout):
    """x + norm(attention(norm(x))), then x + norm(feed_forward(norm(x))).

    Ding et al. 2021, arXiv 2105.13290; Gemma 2.
    """

    order = "sandwich"


@dataclass(frozen=True)
class BranchNorm(_SequentialLayout):
    """x + norm(attention(x)), then x + norm(feed_forward(x)), which bounds what a branch can add.

    OLMo 2, arXiv 2501.00656.
    """

    order = "branch"


@dataclass(frozen=True)
class PostNorm(_SequentialLayout):
    """norm(x + attention(x)), then norm(x + feed_forward(x)); there is no norm before the head.

    The layout of the first transformer, arXiv 1706.03762.
    """

    order = "post"
    ends_normed = True


@dataclass(frozen=True)
class ParallelResidual(BlockLayout):
    """x + attention(norm(x)) + feed_forward(norm(x)); there is no place for cross-attention.

    GPT-J 2021; Black et al. 2022, arXiv 2204.06745.

    Args:
        shared_norm: Whether both branches share one norm (Falcon, GPT-J) or have one each (GPT-NeoX).
    """

    shared_norm: bool = False
    takes_encoder_states = False

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
        norms = {"attention_norm": make_norm(), "feed_forward_norm": feed_forward_norm}
        return _ParallelBlock(attention, feed_forward, dropout, self.branch_scale, norms=norms)
