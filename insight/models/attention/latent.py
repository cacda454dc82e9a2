"""Multi-head latent attention (DeepSeek-AI 2024, arXiv 2405.04434)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from insight.models.attention.base import (
    MOST_HEADS,
    Attention,
    AttentionModule,
    BuildPosition,
    CallContext,
    require_rotation,
)
from insight.models.attention.kernels import KernelName, ScoreChange, Situation, check_kernel, make_kernel
from insight.models.caches import CacheShape, LayerCache, make_layer_cache
from insight.models.checks import require, require_number, require_positive
from insight.models.linear import Projection
from insight.models.masks import CausalMask
from insight.models.norms import RMSNorm, require_eps
from insight.models.positions import InterleavedRope, Position, PositionEncoding, PositionTables


@dataclass(frozen=True)
class LatentAttention(Attention):
    """Attention whose cache keeps one short vector for each token, from which all keys and values are made.

    The position goes into separate channels, whose key all heads share.

    Args:
        num_heads: Number of heads.
        latent_size: Channels of the vector that keys and values are made from.
        query_latent_size: Channels of the vector that queries are made from; ``None`` = from the input.
        head_dim: Channels of a query and key without position.
        rotary_dim: Channels of a query and key with position.
        value_dim: Channels of a value.
        position: Position encoding of the rotary channels; must be a rotation.
        kernel: ``auto``, ``sdpa``, ``tiled``, ``flex`` or ``reference``.
        window: Most keys that a query sees, its own included; ``None`` = all.
        score_scale: Factor of the scores; ``None`` = ``(head_dim + rotary_dim) ** -0.5``.
        norm_eps: Number added to the mean square in the norms of both vectors.
        dropout: Probability of dropping a softmax weight in training.
    """

    num_heads: int = 4
    latent_size: int = 64
    query_latent_size: int | None = None
    head_dim: int = 32
    rotary_dim: int = 16
    value_dim: int = 32
    position: Position = InterleavedRope()
    kernel: KernelName = "auto"
    window: int | None = None
    score_scale: float | None = None
    norm_eps: float = 1e-6
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_positive(maximum=MOST_HEADS, num_heads=self.num_heads)
        require_positive(
            latent_size=self.latent_size,
            query_latent_size=self.query_latent_size,
            head_dim=self.head_dim,
            rotary_dim=self.rotary_dim,
            value_dim=self.value_dim,
            window=self.window,
        )
        require_number(0, 1e6, "use null for the default", score_scale=self.score_scale)
        key_dim = self.head_dim + self.rotary_dim
        require(
            self.value_dim <= key_dim,
            f"a value has at most as many channels as a key (head_dim={self.head_dim}, "
            f"rotary_dim={self.rotary_dim})",
            f"use value_dim={key_dim} or less",
            value_dim=self.value_dim,
        )
        require_eps(self.norm_eps, "norm_eps")
        check_kernel(self.kernel, self.dropout)
        problem = (
            "in latent attention heads share the key that carries the position, so none can have a bias "
            "of its own"
        )
        require_rotation(self.position, self.rotary_dim, self.num_heads, problem)

    def check(self, hidden_size: int) -> None:
        require_positive(hidden_size=hidden_size)

    def build(self, hidden_size: int, build_position: BuildPosition, layer: int = 0) -> AttentionModule:
        return LatentModule(self, hidden_size, build_position(self.position, self.rotary_dim, self.num_heads))


class LatentModule(AttentionModule):
    """The built form of :class:`LatentAttention`.

    Without a cache, keys and values are computed. With one, the matrices that would make them are applied to
    the queries and to the result instead, which is the same product in another order.
    """

    def __init__(self, config: LatentAttention, hidden_size: int, position: PositionEncoding) -> None:
        super().__init__()
        self.num_heads, self.latent_size = config.num_heads, config.latent_size
        self.head_dim, self.rotary_dim, self.value_dim = config.head_dim, config.rotary_dim, config.value_dim
        self.window, self.dropout = config.window, config.dropout
        key_dim = config.head_dim + config.rotary_dim
        self.scale = config.score_scale if config.score_scale is not None else key_dim**-0.5
        self.position = position
        self.kernel = make_kernel(config.kernel)
        self.latent = Projection(hidden_size, [config.latent_size, config.rotary_dim])
        self.latent_norm = RMSNorm(config.norm_eps).build(config.latent_size)
        self.key_value = Projection(
            config.latent_size, [self.num_heads * config.head_dim, self.num_heads * config.value_dim]
        )
        compressed = config.query_latent_size
        self.query_latent = None if compressed is None else Projection(hidden_size, [compressed])
        self.query_latent_norm = None if compressed is None else RMSNorm(config.norm_eps).build(compressed)
        self.query = Projection(compressed or hidden_size, [self.num_heads * key_dim])
        self.output = Projection(self.num_heads * config.value_dim, [hidden_size], writes_residual=True)

    def forward(self, hidden: Tensor, context: CallContext) -> Tensor:
        mask = context.mask.within(self.window)
        query, rotary_query = self._queries(hidden, context.tables)
        latent, rotary_key = self.latent(hidden).split([self.latent_size, self.rotary_dim], dim=-1)
        latent = self.latent_norm(latent)
        rotary_key = self._encode(rotary_key.unsqueeze(2), context.tables)
        change = ScoreChange(dropout=self.dropout if self.training else 0.0)
        if context.cache is None:
            sizes = [self.num_heads * self.head_dim, self.num_heads * self.value_dim]
            keys, values = self.key_value(latent).split(sizes, dim=-1)
            key = keys.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            value = values.unflatten(-1, (self.num_heads, self.value_dim)).transpose(1, 2)
            key = torch.cat([key, rotary_key.expand(-1, self.num_heads, -1, -1)], dim=-1)
            query = torch.cat([query, rotary_query], dim=-1)
            mixed = self.kernel(query, key, value, mask, self.scale, change)
        else:
            latent, heads = latent.unsqueeze(1), (self.num_heads, -1, self.latent_size)
            to_key, to_value = (part.view(heads).to(query.dtype) for part in self.key_value.parts())
            key = torch.cat([latent, rotary_key], dim=-1)
            key, _, mask = context.cache.append(key, latent[..., :0], mask)
            query = torch.cat([query @ to_key, rotary_query], dim=-1)
            mixed = self.kernel(query, key, key, mask, self.scale, change)
            # The latent is the first part of the key; the rest of the result is cut off.
            mixed = mixed[..., : self.latent_size] @ to_value.mT
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return output

    def make_cache(self, shape: CacheShape) -> LayerCache:
        self.position.check_cache(shape.max_length)
        # Values are part of the keys, so the cache keeps values without channels.
        return make_layer_cache(shape, 1, 0, self.latent_size + self.rotary_dim, self.window)

    def describe_kernel(self, device: str, dtype: torch.dtype, num_tokens: int) -> str:
        mask, wide_keys = CausalMask().within(self.window), self.head_dim + self.rotary_dim > self.value_dim
        change = ScoreChange(dropout=self.dropout)
        return self.kernel.describe(Situation(device, dtype, num_tokens, True, mask, change, wide_keys))

    def flops_per_token(self, sequence_length: int) -> int:
        return 2 * self.num_heads * (self.head_dim + self.rotary_dim + self.value_dim) * sequence_length

    def _queries(self, hidden: Tensor, tables: PositionTables) -> tuple[Tensor, Tensor]:
        """Channels without and with position, each ``(batch, heads, sequence, channels)``."""
        if self.query_latent is not None and self.query_latent_norm is not None:
            hidden = self.query_latent_norm(self.query_latent(hidden))
        heads = self.query(hidden).unflatten(-1, (self.num_heads, self.head_dim + self.rotary_dim))
        plain, rotary = heads.split([self.head_dim, self.rotary_dim], dim=-1)
        return plain.transpose(1, 2), self._encode(rotary, tables)

    def _encode(self, heads: Tensor, tables: PositionTables) -> Tensor:
        """Encode positions into ``(batch, sequence, heads, channels)``, and put heads before the sequence."""
        wide = torch.promote_types(heads.dtype, torch.float32)
        return self.position.apply_to_heads(heads.to(wide), tables).to(heads.dtype).transpose(1, 2)
