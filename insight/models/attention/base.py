"""The interface between a block and its token mixer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from insight.models.caches import CacheShape, CrossCache, EncoderStates, LayerCache
from insight.models.checkpointing import Recomputable
from insight.models.checks import require
from insight.models.masks import Mask
from insight.models.positions import Position, PositionEncoding, PositionTables
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError

MOST_HEADS = 2**14

BuildPosition = Callable[[Position, int, int], PositionEncoding]
"""``(position, head_dim, num_heads) -> encoding``; layers with equal positions share one encoding."""


@dataclass(frozen=True)
class CallContext:
    """The arguments of a layer's call beside the hidden states.

    Args:
        mask: Which keys each query may attend to.
        tables: Tables of the layer's position encoding for the positions of the call.
        cache: Keys and values, or a state, of earlier tokens; those of the call are appended.
        encoder_states: The other sequence that cross-attention reads, or keys and values made of it.
        real_tokens: Bool ``(batch, sequence)``, False at padding; ``None`` if all tokens are real. Routers
            count real tokens only.
        position_ids: Positions of the call's tokens, int64 ``(sequence,)`` or ``(batch, sequence)``, which
            cross-attention with positions compares with those of the states.
    """

    mask: Mask
    tables: PositionTables = ()
    cache: LayerCache | None = None
    encoder_states: EncoderStates | CrossCache | None = None
    real_tokens: Tensor | None = None
    position_ids: Tensor | None = None


class AttentionModule(Recomputable):
    """The built form of an :class:`Attention`; ``position`` encodes the positions of queries and keys."""

    part = "attention"
    position: PositionEncoding

    def forward(self, hidden: Tensor, context: CallContext) -> Tensor:
        """Mix the tokens of a sequence: ``(batch, sequence, hidden_size)`` to the same shape."""
        raise NotImplementedError

    def make_cache(self, shape: CacheShape) -> LayerCache:
        """Make an empty cache for this layer, or refuse a length for which its positions allow none."""
        raise NotImplementedError

    def flops_per_token(self, sequence_length: int) -> int:
        """Matrix-product FLOPs of one token in the forward pass, without those of the projections."""
        raise NotImplementedError

    def describe_kernel(self, device: str, dtype: torch.dtype, num_tokens: int) -> str | None:
        """Describe in a few words which kernel training uses and why; ``None`` where there is no softmax.

        The facts are the device (``"cpu"`` or ``"cuda"``), the type of queries and keys, and their number.
        """
        return None


class CrossAttentionModule(AttentionModule):
    """The built form of an :class:`Attention` that can read another sequence (Vaswani et al. 2017).

    Made by :meth:`Attention.build_cross`, it reads ``context.encoder_states``, otherwise the sequence itself.
    """

    def project_states(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values ``(batch, num_key_value_heads, source, head_dim)`` of an encoder's states."""
        raise NotImplementedError

    def flops_per_state(self) -> int:
        """Matrix-product FLOPs of :meth:`project_states` for one state, in the forward pass."""
        raise NotImplementedError


@dataclass(frozen=True)
class Attention(Component):
    """A way to mix tokens: projections, positions, mask and kernel."""

    @abstractmethod
    def build(self, hidden_size: int, build_position: BuildPosition, layer: int = 0) -> AttentionModule:
        """Build the module of one layer.

        Args:
            hidden_size: Size of the residual stream.
            build_position: Makes the position encoding, which layers share.
            layer: Number of the layer, from 0.
        """

    @abstractmethod
    def check(self, hidden_size: int) -> None:
        """Refuse, without building it, what :meth:`build` could not build."""

    @property
    def causal_only(self) -> bool:
        """Whether a token sees only what came before it, whatever the mask, so no encoder can use it."""
        return False

    def check_bidirectional(self) -> None:
        """Refuse attention that only looks back, or whose position encoding does."""
        require(
            not self.causal_only,
            "an encoder needs attention in both directions, and here a token sees only what came before",
            "use GroupedQueryAttention there",
            attention=self,
        )

    def check_cross(self, hidden_size: int) -> None:
        """Refuse attention that reads its own sequence only or cannot be built."""
        problem = "it reads its own sequence only"
        remedy = "use GroupedQueryAttention or DifferentialAttention"
        raise ConfigError(problem, remedy, option="cross_attention", value=type(self).__name__)

    def build_cross(
        self, hidden_size: int, encoder_size: int, build_position: BuildPosition, layer: int = 0
    ) -> CrossAttentionModule:
        """Build the module that reads states of ``encoder_size``; other arguments as in :meth:`build`."""
        self.check_cross(hidden_size)
        raise NotImplementedError


@dataclass(frozen=True)
class LayerPattern(Attention):
    """Layer i takes ``layers[i % len(layers)]``: local and global layers, every fourth without positions.

    Args:
        layers: Attention of the first layers; the pattern then repeats.
    """

    layers: tuple[Attention, ...] = ()

    def __post_init__(self) -> None:
        require(bool(self.layers), "a pattern has at least one attention", "list them in turn", layers="()")

    def check(self, hidden_size: int) -> None:
        for attention in self.layers:
            attention.check(hidden_size)

    @property
    def causal_only(self) -> bool:
        return any(attention.causal_only for attention in self.layers)

    def check_bidirectional(self) -> None:
        for attention in self.layers:
            attention.check_bidirectional()

    def check_cross(self, hidden_size: int) -> None:
        for attention in self.layers:
            attention.check_cross(hidden_size)

    def build(self, hidden_size: int, build_position: BuildPosition, layer: int = 0) -> AttentionModule:
        return self._of(layer).build(hidden_size, build_position, layer)

    def build_cross(
        self, hidden_size: int, encoder_size: int, build_position: BuildPosition, layer: int = 0
    ) -> CrossAttentionModule:
        return self._of(layer).build_cross(hidden_size, encoder_size, build_position, layer)

    def _of(self, layer: int) -> Attention:
        return self.layers[layer % len(self.layers)]


def head_size(hidden_size: int, num_heads: int, head_dim: int | None) -> int:
    """Channels of a head: ``head_dim``, or an equal share of ``hidden_size`` where it is ``None``."""
    if head_dim is not None:
        return head_dim
    share, rest = divmod(hidden_size, num_heads)
    remedy = f"use hidden_size={(share + 1) * num_heads} or set head_dim"
    require(not rest, f"must divide hidden_size={hidden_size}", remedy, num_heads=num_heads)
    return share


def require_rotation(position: Position, head_dim: int, num_heads: int, problem: str) -> None:
    """Refuse a position that adds to the scores or to the channels of a head."""
    encoding = position.build(head_dim, num_heads)
    plain = not (encoding.extra_channels or encoding.has_bias)
    require(plain, problem, "use Rope, InterleavedRope or NoPosition", position=position)
