"""What a block expects of its token mixer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch

from insight.models.caches import CrossCache, LayerCache, Memory
from insight.models.checkpointing import Recomputable
from insight.models.masks import Mask
from insight.models.positions import Position, PositionEncoding
from insight.models.positions.base import PositionTables
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError


class AttentionModule(Recomputable):
    """The built form of an :class:`Attention`."""

    part = "attention"
    position: PositionEncoding

    def forward(
        self, hidden: torch.Tensor, *, mask: Mask, tables: PositionTables, cache: LayerCache | None = None
    ) -> torch.Tensor:
        """Mix tokens.

        Args:
            hidden: ``(batch, sequence, hidden_size)``.
            mask: Which keys each query sees.
            tables: What ``self.position.tables`` returned for the positions of ``hidden``.
            cache: Keys and values of earlier tokens; those of ``hidden`` are appended.

        Returns:
            ``(batch, sequence, hidden_size)``.
        """
        raise NotImplementedError

    def make_cache(
        self,
        batch_size: int,
        max_length: int,
        dtype: torch.dtype,
        device: torch.device,
        max_rollback: int = 0,
    ) -> LayerCache:
        """An empty cache for this layer; arguments as in :meth:`Decoder.make_cache`.

        Raises:
            ConfigError: The position encoding allows no cache of that length.
        """
        raise NotImplementedError

    def flops_per_token(self, sequence_length: int) -> int:
        """Matrix-product FLOPs of one token forward, beyond those of the projections."""
        raise NotImplementedError

    def describe_kernel(self, device: str, dtype: torch.dtype, num_tokens: int) -> str | None:
        """Which kernel training takes and why, in a few words; ``None`` where there is no softmax.

        Args:
            device: ``"cpu"`` or ``"cuda"``.
            dtype: Of queries, keys and values.
            num_tokens: Of a sequence.
        """
        return None


class CrossAttentionModule(AttentionModule):
    """The built form of an :class:`Attention` that can read another sequence (Vaswani et al. 2017).

    Built by :meth:`Attention.build_cross` it reads a memory, otherwise the sequence itself.
    """

    def forward(
        self,
        hidden: torch.Tensor,
        *,
        mask: Mask,
        tables: PositionTables,
        cache: LayerCache | None = None,
        memory: Memory | CrossCache | None = None,
    ) -> torch.Tensor:
        """As :meth:`AttentionModule.forward`.

        Args:
            hidden: As there; makes the queries.
            mask: As there; of a memory which of its states each query sees.
            tables: As there; none for a memory.
            cache: As there; none for a memory.
            memory: What keys and values are made of, where that is not ``hidden``.
        """
        raise NotImplementedError

    def project_memory(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values ``(batch, num_key_value_heads, source, head_dim)`` of a memory's states."""
        raise NotImplementedError

    def memory_flops_per_state(self) -> int:
        """Matrix-product FLOPs of :meth:`project_memory` for one state, forward."""
        raise NotImplementedError


@dataclass(frozen=True)
class Attention(Component):
    """A way to mix tokens: projections, positions, mask and kernel."""

    @abstractmethod
    def build(
        self,
        hidden_size: int,
        build_position: Callable[[Position, int, int], PositionEncoding],
        layer: int = 0,
    ) -> AttentionModule:
        """The module for one layer.

        Args:
            hidden_size: Size of the residual stream.
            build_position: ``(position, head_dim, num_heads) -> encoding``, shared between layers.
            layer: Number of the layer, from 0.

        Raises:
            ConfigError: The numbers do not fit together.
        """

    @abstractmethod
    def check(self, hidden_size: int) -> None:
        """Refuse what :meth:`build` could not build, without building it.

        Raises:
            ConfigError: The numbers do not fit together.
        """

    @property
    def causal_only(self) -> bool:
        """Whether a token sees only what came before it, whatever the mask: no use for an encoder."""
        return False

    def check_bidirectional(self) -> None:
        """Refuse what does not hold where tokens see what comes after them.

        Raises:
            ConfigError: It only looks back, or its positions tell only what came before.
        """
        if self.causal_only:
            raise ConfigError(
                f"{type(self).__name__} in an encoder: a token sees only what came before it",
                "use GroupedQueryAttention there",
            )

    def check_cross(self, hidden_size: int) -> None:
        """Refuse what could not read another sequence, or could not be built.

        Raises:
            ConfigError: It reads its own sequence only, compares positions, or the numbers do not fit.
        """
        raise ConfigError(
            f"cross_attention={type(self).__name__}: it reads its own sequence only",
            "use GroupedQueryAttention or DifferentialAttention with NoPosition",
        )

    def build_cross(
        self,
        hidden_size: int,
        memory_size: int,
        build_position: Callable[[Position, int, int], PositionEncoding],
        layer: int = 0,
    ) -> CrossAttentionModule:
        """The module that reads another sequence; arguments as in :meth:`build`.

        Args:
            hidden_size: Size of the residual stream.
            memory_size: Size of the states that are read.
            build_position: As there.
            layer: As there.

        Raises:
            ConfigError: As :meth:`check_cross`.
        """
        self.check_cross(hidden_size)
        raise NotImplementedError


def head_size(hidden_size: int, num_heads: int, head_dim: int | None) -> int:
    """Channels of a head: ``head_dim``, or an equal share of ``hidden_size`` where it is ``None``.

    Raises:
        ConfigError: There is no equal share.
    """
    if head_dim is None and hidden_size % num_heads:
        raise ConfigError(
            f"hidden_size={hidden_size}, num_heads={num_heads}: num_heads must divide hidden_size",
            f"use hidden_size={hidden_size // num_heads * num_heads + num_heads} or set head_dim",
        )
    return hidden_size // num_heads if head_dim is None else head_dim


@dataclass(frozen=True)
class LayerPattern(Attention):
    """Layer i takes ``layers[i % len(layers)]``: local and global layers, every fourth without positions.

    Args:
        layers: Attention of the first layers; the pattern then repeats.
    """

    layers: tuple[Attention, ...] = ()

    def __post_init__(self) -> None:
        if not self.layers:
            raise ConfigError("layers=(): a pattern has at least one attention", "list them in turn")

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

    def build(
        self,
        hidden_size: int,
        build_position: Callable[[Position, int, int], PositionEncoding],
        layer: int = 0,
    ) -> AttentionModule:
        return self.layers[layer % len(self.layers)].build(hidden_size, build_position, layer)

    def build_cross(
        self,
        hidden_size: int,
        memory_size: int,
        build_position: Callable[[Position, int, int], PositionEncoding],
        layer: int = 0,
    ) -> CrossAttentionModule:
        attention = self.layers[layer % len(self.layers)]
        return attention.build_cross(hidden_size, memory_size, build_position, layer)
