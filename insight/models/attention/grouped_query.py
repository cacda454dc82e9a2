"""Multi-head, grouped-query and multi-query attention: one class, told apart by the number of key heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from insight.models.attention.base import Attention, AttentionModule
from insight.models.attention.kernels import Kernel, make_kernel
from insight.models.attention.masks import Mask
from insight.models.attention.query_key_norm import build_query_key_norm
from insight.models.caches import FullCache, LayerCache
from insight.models.checks import divisors, require_positive
from insight.models.linear import Projection
from insight.models.positions import Position, PositionEncoding, Rope
from insight.models.positions.base import PositionTables
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class GroupedQueryAttention(Attention):
    """Attention whose query heads share key and value heads in groups.

    Ainslie et al. 2023, arXiv 2305.13245.

    Args:
        num_heads: Query heads.
        num_key_value_heads: Key and value heads; ``None`` = ``num_heads`` (multi-head), 1 = multi-query.
        head_dim: Channels of a head; ``None`` = ``hidden_size / num_heads``.
        position: How queries and keys are told their positions.
        qk_norm: RMS normalisation of queries and keys per head before the rotation: ``none``, ``rms``
            (with a learned factor a channel, as in Qwen 3) or ``rms_weightless`` (as in nanochat).
        kernel: ``sdpa`` (fused), ``tiled`` (fast training on CPU), ``reference`` (plain matrix
            products) or ``auto``.
    """

    num_heads: int = 4
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    position: Position = Rope()
    qk_norm: Literal["none", "rms", "rms_weightless"] = "none"
    kernel: Literal["auto", "sdpa", "tiled", "reference"] = "auto"

    def __post_init__(self) -> None:
        require_positive(
            num_heads=self.num_heads, num_key_value_heads=self.num_key_value_heads, head_dim=self.head_dim
        )
        if self.num_key_value_heads is not None and self.num_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_heads={self.num_heads}, num_key_value_heads={self.num_key_value_heads}: "
                "num_key_value_heads must divide num_heads",
                f"use {divisors(self.num_heads)}",
            )
        build_query_key_norm(self.qk_norm, 1)
        make_kernel(self.kernel)
        if self.head_dim is not None:
            self.position.build(self.head_dim)

    def check(self, hidden_size: int) -> None:
        if self.head_dim is None and hidden_size % self.num_heads:
            raise ConfigError(
                f"hidden_size={hidden_size}, num_heads={self.num_heads}: num_heads must divide hidden_size",
                f"use hidden_size={hidden_size // self.num_heads * self.num_heads + self.num_heads} "
                "or set head_dim",
            )
        self.position.build(self._head_dim(hidden_size))

    def build(
        self, hidden_size: int, build_position: Callable[[Position, int], PositionEncoding]
    ) -> AttentionModule:
        self.check(hidden_size)
        head_dim = self._head_dim(hidden_size)
        return GroupedQueryModule(self, hidden_size, head_dim, build_position(self.position, head_dim))

    def _head_dim(self, hidden_size: int) -> int:
        return self.head_dim if self.head_dim is not None else hidden_size // self.num_heads


class GroupedQueryModule(AttentionModule):
    """The built form of :class:`GroupedQueryAttention`.

    One matrix product makes queries, keys and values.
    """

    def __init__(
        self, config: GroupedQueryAttention, hidden_size: int, head_dim: int, position: PositionEncoding
    ) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.num_key_value_heads = config.num_key_value_heads or config.num_heads
        self.head_dim = head_dim
        self.position = position
        self.kernel: Kernel = make_kernel(config.kernel)
        query_size, key_size = self.num_heads * head_dim, self.num_key_value_heads * head_dim
        self.query_key_value = Projection(hidden_size, [query_size, key_size, key_size])
        self.query_norm = build_query_key_norm(config.qk_norm, head_dim)
        self.key_norm = build_query_key_norm(config.qk_norm, head_dim)
        self.output = Projection(query_size, [hidden_size], writes_residual=True)

    def forward(
        self, hidden: torch.Tensor, *, mask: Mask, tables: PositionTables, cache: LayerCache | None = None
    ) -> torch.Tensor:
        query, key, value = self.project(hidden, tables)
        if cache is not None:
            key, value = cache.append(key, value)
        mixed = self.kernel(query, key, value, mask, self.head_dim**-0.5)
        output: torch.Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return output

    def project(
        self, hidden: torch.Tensor, tables: PositionTables
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values ``(batch, heads, sequence, head_dim)``, positions encoded."""
        queries, keys = self.num_heads, self.num_key_value_heads
        heads = self.query_key_value(hidden).unflatten(-1, (queries + 2 * keys, self.head_dim))
        query, key, value = torch.split(heads, [queries, keys, keys], dim=2)
        # Norm and rotation in float32 also under bfloat16: rounding once, at the end, and no operation
        # that mixes dtypes (those are slow on a CPU).
        wide = torch.promote_types(heads.dtype, torch.float32)
        query = self.position.apply_to_heads(self.query_norm(query.to(wide)), tables).to(heads.dtype)
        key = self.position.apply_to_heads(self.key_norm(key.to(wide)), tables).to(heads.dtype)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def make_cache(
        self, batch_size: int, max_length: int, dtype: torch.dtype, device: torch.device
    ) -> LayerCache:
        return FullCache(batch_size, self.num_key_value_heads, max_length, self.head_dim, dtype, device)

    def flops_per_token(self, sequence_length: int) -> int:
        # Scores and weighted sum, over the whole square as torch's counter and PaLM's formula do.
        return 2 * 2 * self.num_heads * self.head_dim * sequence_length
