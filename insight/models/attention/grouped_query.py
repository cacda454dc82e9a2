"""Multi-head, grouped-query and multi-query attention: one class with different numbers of key heads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from insight.models.attention.base import (
    MOST_HEADS,
    Attention,
    AttentionModule,
    BuildPosition,
    CallContext,
    CrossAttentionModule,
    head_size,
)
from insight.models.attention.kernels import KernelName, ScoreChange, Situation, check_kernel, make_kernel
from insight.models.caches import BeamLayerCache, CacheShape, LayerCache, make_layer_cache
from insight.models.checks import require, require_divisor, require_flags, require_number, require_positive
from insight.models.linear import Projection
from insight.models.masks import CausalMask, Mask
from insight.models.norms import QueryKeyNorm, QueryKeyNormName, find_query_key_norm, require_eps, rms_norm
from insight.models.positions import NoPosition, Position, PositionTables, Rope


@dataclass(frozen=True)
class GroupedQueryAttention(Attention):
    """Attention whose query heads share key and value heads (Ainslie et al. 2023, arXiv 2305.13245).

    Args:
        num_heads: Number of query heads.
        num_key_value_heads: Number of key and value heads; ``None`` = ``num_heads`` (multi-head),
            1 = multi-query.
        head_dim: Channels of a head; ``None`` = ``hidden_size / num_heads``.
        position: Position encoding of queries and keys.
        qk_norm: Normalisation of queries and keys: ``none``, a component (``HeadNorm``, ``FullWidthNorm``),
            or RMS per head before the rotation, ``rms`` (with a learned factor for each channel, as in
            Qwen 3) or ``rms_weightless`` (as in nanochat).
        kernel: ``sdpa`` (fused), ``tiled`` (fast training on CPU), ``flex`` (masks, caps and biases fused on
            CUDA), ``reference`` (plain matrix products) or ``auto``, which prints its choice at the start.
        window: Most keys that a query sees, its own included; ``None`` = all.
        score_scale: Factor of the scores; ``None`` = ``head_dim ** -0.5``.
        score_soft_cap: Bound c of the scores, c * tanh(scores / c); ``None`` for none.
        qkv_bias: Whether queries, keys and values have a bias.
        output_bias: Whether the output has a bias.
        sinks: Whether each head has a learned score that takes attention and adds nothing (gpt-oss).
        output_gate: Whether a sigmoid of the input multiplies the heads before the output (Qwen 3 Next).
        chunk_size: Tokens of a chunk; a query sees only keys of its own chunk (Llama 4). ``None`` = all.
        dropout: Probability of dropping a softmax weight in training.
    """

    num_heads: int = 4
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    position: Position = Rope()
    qk_norm: QueryKeyNorm | QueryKeyNormName = "none"
    kernel: KernelName = "auto"
    window: int | None = None
    score_scale: float | None = None
    score_soft_cap: float | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    sinks: bool = False
    output_gate: bool = False
    chunk_size: int | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_positive(
            maximum=MOST_HEADS, num_heads=self.num_heads, num_key_value_heads=self.num_key_value_heads
        )
        require_positive(head_dim=self.head_dim, window=self.window, chunk_size=self.chunk_size)
        require_divisor("num_heads", self.num_heads, num_key_value_heads=self.num_key_value_heads)
        for name in ("score_scale", "score_soft_cap"):
            require_number(0, 1e6, "use null for the default", **{name: getattr(self, name)})
        require_flags(self)
        find_query_key_norm(self.qk_norm)
        check_kernel(self.kernel, self.dropout, self.score_soft_cap)
        if self.head_dim is not None:
            self.check(self.num_heads * self.head_dim)

    def check(self, hidden_size: int) -> None:
        position = self.position.build(self.head_size(hidden_size), self.num_heads)
        if not position.extra_channels:
            return
        problem = f"score_soft_cap={self.score_soft_cap} would bound the channels that carry the position"
        require(
            self.score_soft_cap is None, problem, "use another position or no cap", position=self.position
        )
        norm = find_query_key_norm(self.qk_norm)
        problem = "qk_norm with after_position=true would rescale the channels that carry the position"
        remedy = "use after_position=false"
        require(norm is None or not norm.after_position, problem, remedy, position=self.position)

    def head_size(self, hidden_size: int) -> int:
        """Channels of a head."""
        return head_size(hidden_size, self.num_heads, self.head_dim)

    @property
    def _module(self) -> type[GroupedQueryModule]:
        return GroupedQueryModule

    def build(self, hidden_size: int, build_position: BuildPosition, layer: int = 0) -> AttentionModule:
        self.check(hidden_size)
        return self._module(self, hidden_size, build_position, layer)

    def build_cross(
        self, hidden_size: int, encoder_size: int, build_position: BuildPosition, layer: int = 0
    ) -> CrossAttentionModule:
        self.check_cross(hidden_size)
        return self._module(self, hidden_size, build_position, layer, encoder_size)

    def check_bidirectional(self) -> None:
        super().check_bidirectional()
        require(
            self.position.looks_ahead,
            "in an encoder it describes only keys before the query",
            "use bidirectional=true with Alibi or RelativeBias, Rope, or an input_position with NoPosition",
            position=self.position,
        )
        self._check_no_chunks("an encoder")

    def check_cross(self, hidden_size: int) -> None:
        encoding = self.position.build(self.head_size(hidden_size), self.num_heads)
        require(
            isinstance(self.position, NoPosition) or (encoding.has_bias and self.position.looks_ahead),
            "in cross-attention a position is a bias by the distance to either side",
            "use NoPosition, or Alibi or RelativeBias with bidirectional=true",
            position=self.position,
        )
        problem = "in cross-attention another sequence has no place to slide along"
        require(self.window is None, problem, "use window=null", window=self.window)
        self._check_no_chunks("cross-attention")
        self.check(hidden_size)

    def _check_no_chunks(self, where: str) -> None:
        problem = f"{where} has no chunks, which belong to causal attention"
        require(self.chunk_size is None, problem, "use chunk_size=null", chunk_size=self.chunk_size)


class GroupedQueryModule(CrossAttentionModule):
    """The built form of :class:`GroupedQueryAttention`.

    One matrix product makes queries, keys and values. Where an encoder is read, one makes the queries and
    another the keys and values; ``encoder_size`` is then the size of the encoder's states.
    """

    def __init__(
        self,
        config: GroupedQueryAttention,
        hidden_size: int,
        build_position: BuildPosition,
        layer: int,
        encoder_size: int | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.num_key_value_heads = config.num_key_value_heads or config.num_heads
        self.head_dim = head_dim = config.head_size(hidden_size)
        self.window, self.chunk_size = config.window, config.chunk_size
        self.scale = config.score_scale if config.score_scale is not None else head_dim**-0.5
        self.soft_cap = config.score_soft_cap
        self.dropout = config.dropout
        self.position = build_position(config.position, head_dim, self.num_heads)
        self.kernel = make_kernel(config.kernel)
        self.reads_encoder = encoder_size is not None
        query_size, key_size = self.num_heads * head_dim, self.num_key_value_heads * head_dim
        sizes = [query_size, key_size, key_size]
        if encoder_size is None:
            self.query_key_value = Projection(hidden_size, sizes, bias=config.qkv_bias)
        else:
            self.query = Projection(hidden_size, sizes[:1], bias=config.qkv_bias)
            self.key_value = Projection(encoder_size, sizes[1:], bias=config.qkv_bias)
        norm = find_query_key_norm(config.qk_norm)
        self.norm_after_position = norm is not None and norm.after_position
        self.query_norm = nn.Identity() if norm is None else norm.build(self.num_heads, head_dim)
        self.key_norm = nn.Identity() if norm is None else norm.build(self.num_key_value_heads, head_dim)
        self.output = Projection(query_size, [hidden_size], bias=config.output_bias, writes_residual=True)
        self.gate = Projection(hidden_size, [query_size]) if config.output_gate else None
        self.sinks = nn.Parameter(torch.zeros(self.num_heads)) if config.sinks else None

    def reset_parameters(self) -> None:
        if self.sinks is not None:
            nn.init.zeros_(self.sinks)

    def forward(self, hidden: Tensor, context: CallContext) -> Tensor:
        mask, states, distances = context.mask, context.encoder_states, None
        if not self.reads_encoder:
            query, key, value = self.project(hidden, context.tables)
            mask = mask.within(self.window, self.chunk_size)
            if context.cache is not None:
                key, value, mask = context.cache.append(key, value, mask)
        else:
            assert states is not None
            heads = self.query(hidden).unflatten(-1, (-1, self.head_dim))
            encode = self.position.encode_queries
            query = self._encode(heads, self.query_norm, encode, context.tables, self.scale)
            key, value = (x.to(query.dtype) for x in states.keys_and_values(self.project_states))
        beams = query.shape[0] // key.shape[0]
        if beams > 1:  # the beams of a sentence are queries of one row, since they share its keys
            query = query.view(-1, beams, *query.shape[1:]).transpose(1, 2).flatten(2, 3)
        if self.reads_encoder and self.position.has_bias:
            positions = context.position_ids
            assert positions is not None
            if positions.ndim > 1 or beams > 1:
                positions = positions.expand(hidden.shape[:2]).reshape(key.shape[0], -1)
            keys = mask.key_places(key.shape[2], key.device)
            distances = positions.unsqueeze(-1) - keys.unsqueeze(1)
        mixed = self.mix(query, key, value, mask, distances).transpose(1, 2).reshape(*hidden.shape[:2], -1)
        if self.gate is not None:
            mixed = mixed * torch.sigmoid(self.gate(hidden))
        output: Tensor = self.output(mixed)
        return output

    def project(self, hidden: Tensor, tables: PositionTables) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values ``(batch, heads, sequence, head_dim)``, positions encoded."""
        queries, keys = self.num_heads, self.num_key_value_heads
        heads = self.query_key_value(hidden).unflatten(-1, (queries + 2 * keys, self.head_dim))
        query, key, value = torch.split(heads, [queries, keys, keys], dim=2)
        query = self._encode(query, self.query_norm, self.position.encode_queries, tables, self.scale)
        key = self._encode(key, self.key_norm, self.position.encode_keys, tables)
        return query, key, value.transpose(1, 2)

    def project_states(self, states: Tensor) -> tuple[Tensor, Tensor]:
        heads = self.key_value(states).unflatten(-1, (-1, self.head_dim))
        key, value = heads.chunk(2, dim=2)
        return self._encode(key, self.key_norm, self.position.encode_keys, ()), value.transpose(1, 2)

    def _encode(self, heads: Tensor, norm: nn.Module, encode: Callable[..., Tensor], *others: Any) -> Tensor:
        """Norm and position; ``(batch, sequence, heads, …)`` becomes ``(batch, heads, sequence, …)``."""
        # In float32 even under bfloat16: the result is rounded once, and no operation mixes dtypes, which
        # is slow on a CPU.
        wide = (
            heads
            if heads.dtype == torch.float32
            else heads.to(torch.promote_types(heads.dtype, torch.float32))
        )
        after = self.norm_after_position
        encoded = norm(encode(wide, *others)) if after else encode(norm(wide), *others)
        result: Tensor = encoded.to(heads.dtype).transpose(1, 2)
        return result

    def mix(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, distances: Tensor | None = None
    ) -> Tensor:
        """Values weighted by attention, ``(batch, heads, sequence, channels)``.

        ``distances`` are those of two sequences, as in :meth:`PositionEncoding.bias`; ``None`` = of one.
        """
        bias = None
        if self.position.has_bias:
            if distances is None:
                distances = mask.distances(query.shape[2], key.shape[2], query.device)
            bias = self.position.bias(distances)
        dropout = self.dropout if self.training else 0.0
        change = ScoreChange(bias, self.soft_cap, self.sinks, dropout)
        return self.kernel(query, key, value, mask, self.scale, change)

    def describe_kernel(self, device: str, dtype: torch.dtype, num_tokens: int) -> str:
        mask = CausalMask().within(self.window, self.chunk_size)
        bias = torch.empty(0) if self.position.has_bias else None
        change = ScoreChange(bias, self.soft_cap, self.sinks, self.dropout)
        wide_keys = self.position.extra_channels > 0
        return self.kernel.describe(Situation(device, dtype, num_tokens, True, mask, change, wide_keys))

    def make_cache(self, shape: CacheShape) -> LayerCache:
        self.position.check_cache(shape.max_length)
        window = self.window if self.chunk_size is None else None  # a ring would forget where a chunk began
        extra_channels = self.position.extra_channels
        if shape.tree is not None and self.window is None and self.chunk_size is None:
            heads = self.num_key_value_heads
            return BeamLayerCache(shape, shape.tree, heads, self.head_dim, extra_channels)
        return make_layer_cache(shape, self.num_key_value_heads, self.head_dim, extra_channels, window)

    def flops_per_token(self, sequence_length: int) -> int:
        # Scores and weighted sum are counted over the whole square, as by torch's counter and PaLM's formula.
        return 2 * 2 * self.num_heads * self.head_dim * sequence_length

    def flops_per_state(self) -> int:
        return 2 * self.key_value.weight.numel()


@dataclass(frozen=True)
class DifferentialAttention(GroupedQueryAttention):
    """The difference of two attentions, which cancels the weight that both give to irrelevant tokens.

    Head i of the first half of the query heads and head i of the second half read the same two value heads.
    The second result is subtracted with a learned weight, which begins at 0.8 - 0.6 exp(-0.3 layer).

    Args:
        weight_std: Standard deviation of the initial values of the four vectors that make the weight.
        norm_eps: Number added to the mean square in the norm of each pair of heads.
    """

    weight_std: float = 0.1
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        num_heads, num_value_heads = self.num_heads, self.num_key_value_heads
        problem = "differential attention pairs heads"
        require(num_heads % 2 == 0, problem, "use an even number", num_heads=num_heads)
        pairs_up = num_value_heads is None or num_value_heads == 1 or num_value_heads % 2 == 0
        problem, remedy = "differential attention pairs value heads", "use 1 or an even number"
        require(pairs_up, problem, remedy, num_key_value_heads=num_value_heads)
        require_number(0, 100, "use 0.1", low_allowed=True, weight_std=self.weight_std)
        require_eps(self.norm_eps, "norm_eps")

    @property
    def _module(self) -> type[GroupedQueryModule]:
        return DifferentialModule


class DifferentialModule(GroupedQueryModule):
    """The built form of :class:`DifferentialAttention`.

    Kernels need values as wide as keys, so each half of a value pair has a separate call.
    """

    def __init__(
        self,
        config: DifferentialAttention,
        hidden_size: int,
        build_position: BuildPosition,
        layer: int,
        encoder_size: int | None = None,
    ) -> None:
        super().__init__(config, hidden_size, build_position, layer, encoder_size)
        self.norm_eps = config.norm_eps
        self.first_weight = 0.8 - 0.6 * math.exp(-0.3 * layer)
        self.weight_query_1, self.weight_key_1, self.weight_query_2, self.weight_key_2 = (
            nn.Parameter(torch.empty(self.head_dim)) for _ in range(4)
        )
        self.weight_std = config.weight_std
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for vector in (self.weight_query_1, self.weight_key_1, self.weight_query_2, self.weight_key_2):
            nn.init.normal_(vector, std=self.weight_std)

    def mix(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, distances: Tensor | None = None
    ) -> Tensor:
        halves = value.chunk(2, dim=1) if value.shape[1] > 1 else (value, value)
        repeats = (1, value.shape[1] // halves[0].shape[1], 1, 1)
        mix = super().mix
        mixed = torch.cat([mix(query, key, half.repeat(repeats), mask, distances) for half in halves], dim=-1)
        first, second = mixed.chunk(2, dim=1)
        difference = first - self.subtracted_share().to(mixed.dtype) * second
        return (1 - self.first_weight) * rms_norm(difference, None, self.norm_eps)

    def subtracted_share(self) -> Tensor:
        """The scalar weight of the attention that is subtracted."""
        wide = torch.promote_types(self.weight_key_1.dtype, torch.float32)
        first = (self.weight_query_1.to(wide) * self.weight_key_1.to(wide)).sum().exp()
        second = (self.weight_query_2.to(wide) * self.weight_key_2.to(wide)).sum().exp()
        return first - second + self.first_weight

    def flops_per_token(self, sequence_length: int) -> int:
        return 2 * super().flops_per_token(sequence_length)
