"""The decoder: token ids to hidden states to scores of the next token."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from insight.models.attention import Attention, GroupedQueryAttention
from insight.models.blocks import Block, BlockLayout, PreNorm
from insight.models.caches import DecoderCache
from insight.models.checks import require_positive
from insight.models.feed_forward import FeedForward, SwiGLU
from insight.models.initialization import Initialization, ScaledInitialization
from insight.models.input_checks import check_inputs, check_positions, name_unknown_id
from insight.models.linear import OutputHead, Projection, TokenEmbedding
from insight.models.masks import Mask, PrefixMask, causal_mask
from insight.models.norms import Norm, RMSNorm
from insight.models.positions import InputPosition, Position, PositionEncoding
from insight.models.positions.base import PositionTables
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class DecoderConfig(Component):
    """A causal decoder-only transformer (Llama's layout by default).

    Args:
        hidden_size: Width of the residual stream.
        num_layers: Blocks.
        attention: Token mixer of every block.
        feed_forward: Feed-forward layer of every block.
        norm: Normalisation before each branch and before the head.
        max_sequence_length: Tokens of context; generation slides or refuses beyond it.
        tie_embeddings: Whether the token embedding also serves as output head.
        dropout: Probability of dropping a channel of the embedding or of a block's branch in training.
        initialization: First values of the matrices.
        logit_soft_cap: Bound c of the scores, c * tanh(scores / c); ``None`` for none.
        block: Where a block normalises, and whether its branches follow one another.
        input_position: Positions added to the token embedding; null where attention is told them.
        embedding_norm: Normalisation of the embedding (BLOOM); null for none.
        embedding_scale: Factor of the embedding (Gemma: the root of hidden_size); null for none.
    """

    hidden_size: int = 256
    num_layers: int = 4
    attention: Attention = GroupedQueryAttention()
    feed_forward: FeedForward = SwiGLU()
    norm: Norm = RMSNorm()
    max_sequence_length: int = 256
    tie_embeddings: bool = False
    dropout: float = 0.0
    initialization: Initialization = ScaledInitialization()
    logit_soft_cap: float | None = None
    block: BlockLayout = PreNorm()
    input_position: InputPosition | None = None
    embedding_norm: Norm | None = None
    embedding_scale: float | None = None

    def __post_init__(self) -> None:
        require_positive(
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            max_sequence_length=self.max_sequence_length,
        )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout}: dropout must lie in [0, 1)", "use 0 to 0.3")
        if self.logit_soft_cap is not None and not self.logit_soft_cap > 0:
            raise ConfigError(
                f"logit_soft_cap={self.logit_soft_cap}: the bound of the scores must be above 0",
                "use 15 or 30, or null for none",
            )
        if self.embedding_scale is not None and not self.embedding_scale > 0:
            raise ConfigError(
                f"embedding_scale={self.embedding_scale}: the factor of the embedding must be above 0",
                "use the root of hidden_size, or null for none",
            )
        self.attention.check(self.hidden_size)

    def build(self, vocabulary_size: int) -> Decoder:
        """A network with fresh weights drawn from torch's global generator.

        Raises:
            ConfigError: ``vocabulary_size`` is below 1.
        """
        return Decoder(self, vocabulary_size)


class Decoder(nn.Module):
    """The built form of :class:`DecoderConfig`.

    Args:
        config: What to build.
        vocabulary_size: Rows of the embedding and of the head.

    Attributes:
        config: As given.
        vocabulary_size: As given.
    """

    def __init__(self, config: DecoderConfig, vocabulary_size: int) -> None:
        super().__init__()
        require_positive(vocabulary_size=vocabulary_size)
        self.config = config
        self.vocabulary_size = vocabulary_size
        encodings: dict[tuple[Position, int, int], PositionEncoding] = {}

        def build_position(position: Position, head_dim: int, num_heads: int) -> PositionEncoding:
            key = (position, head_dim, num_heads)
            if key not in encodings:
                encodings[key] = position.build(head_dim, num_heads)
            return encodings[key]

        size, length = config.hidden_size, config.max_sequence_length
        positions, embedding_norm = config.input_position, config.embedding_norm
        self.embedding = TokenEmbedding(vocabulary_size, size)
        self.input_position = None if positions is None else positions.build(size, length)
        self.embedding_norm = None if embedding_norm is None else embedding_norm.build(size)
        self.blocks = nn.ModuleList(
            config.block.build(
                config.attention.build(size, build_position, layer),
                config.feed_forward.build(size),
                functools.partial(config.norm.build, size),
                config.dropout,
            )
            for layer in range(config.num_layers)
        )
        self.norm = nn.Identity() if config.block.ends_normed else config.norm.build(size)
        self.head = None if config.tie_embeddings else OutputHead(size, vocabulary_size)
        config.initialization.build(self, config.num_layers)

    @property
    def head_weight(self) -> torch.Tensor:
        """The output matrix ``(vocabulary_size, hidden_size)``, for losses that fuse it."""
        return self.embedding.weight if self.head is None else self.head.weight

    def forward(
        self,
        input_ids: torch.Tensor,
        *,
        document_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: DecoderCache | None = None,
        prefix_lengths: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states after the last norm.

        Args:
            input_ids: int64 ``(batch, sequence)``.
            document_ids: int64 ``(batch, sequence)``; attention stays inside equal ids. Padding is a
                document of its own.
            position_ids: int64 ``(batch, sequence)``; ``None`` counts on from the cached tokens.
            cache: From :meth:`make_cache`; the tokens are appended to it.
            prefix_lengths: int64 ``(batch,)``; so many tokens at the start of each row see one another
                in both directions. With a cache they come in its first chunk.
            lengths: int64 ``(batch,)``; with a cache, how many tokens of each row are no padding, which
                stands right of them. Rows then go on at positions of their own.

        Returns:
            ``(batch, sequence, hidden_size)``.

        Raises:
            ConfigError: The shapes do not fit, the cache is full, or two arguments exclude each other.
        """
        check_inputs(input_ids, document_ids, position_ids, cache, prefix_lengths, lengths)
        start = cache.length if cache is not None else 0
        step = cache.plan(input_ids, lengths) if cache is not None else None
        if position_ids is None and step is not None:
            position_ids = step.positions
        elif position_ids is None:
            position_ids = torch.arange(start, start + input_ids.shape[1], device=input_ids.device)
        mask: Mask = causal_mask(document_ids) if prefix_lengths is None else PrefixMask(prefix_lengths)
        tables: dict[PositionEncoding, PositionTables] = {}
        hidden = self._drop(self._embed(input_ids, position_ids))
        if cache is not None:
            cache.begin(step)
        for index, block in enumerate(self._layers()):
            encoding = block.attention.position
            if encoding not in tables:
                tables[encoding] = encoding.tables(position_ids)
            layer_cache = cache.layers[index] if cache is not None else None
            hidden = block(hidden, mask=mask, tables=tables[encoding], cache=layer_cache)
        normed: torch.Tensor = self.norm(hidden)
        return normed

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of the next token ``(..., vocabulary_size)`` for hidden states ``(..., hidden_size)``."""
        # Through the module where there is one, so that it may be quantized or compiled.
        scores = F.linear(hidden, self.embedding.weight) if self.head is None else self.head(hidden)
        return self.cap(scores)

    def cap(self, logits: torch.Tensor) -> torch.Tensor:
        """The soft cap of the configuration, for losses that make the scores themselves."""
        bound = self.config.logit_soft_cap
        return logits if bound is None else bound * torch.tanh(logits / bound)

    def make_cache(
        self,
        batch_size: int,
        max_length: int | None = None,
        dtype: torch.dtype | None = None,
        max_rollback: int = 0,
    ) -> DecoderCache:
        """An empty cache on the device of the weights.

        Args:
            batch_size: Rows.
            max_length: Tokens that fit; ``None`` = ``max_sequence_length``.
            dtype: Of the stored keys and values; ``None`` = that of the weights.
            max_rollback: Newest tokens that can be taken back where sliding windows drop old ones.

        Raises:
            ConfigError: A number is too small, or the positions allow no cache of that length.
        """
        max_length = self.config.max_sequence_length if max_length is None else max_length
        require_positive(batch_size=batch_size, max_length=max_length)
        if max_rollback < 0:
            raise ConfigError(f"max_rollback={max_rollback}: must not be negative", "use 0 for none")
        weight = self.embedding.weight
        layers = [
            block.attention.make_cache(
                batch_size, max_length, dtype or weight.dtype, weight.device, max_rollback
            )
            for block in self._layers()
        ]
        return DecoderCache(layers, max_length)

    def num_parameters(self) -> int:
        """Trainable numbers; a tied matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self, sequence_length: int) -> int:
        """Matrix-product FLOPs of one trained token, forward and backward (twice the forward).

        Counted as in PaLM (arXiv 2204.02311, appendix B): 6 a weight that multiplies, and the whole
        square of attention, although kernels may skip what the mask hides. The embedding only looks up.

        Args:
            sequence_length: Tokens that each sequence holds.
        """
        forward = 2 * self.head_weight.numel()
        for module in self.blocks.modules():
            if isinstance(module, Projection):
                forward += 2 * module.weight.numel()
        forward += sum(block.attention.flops_per_token(sequence_length) for block in self._layers())
        return 3 * forward

    def _layers(self) -> Iterator[Block]:
        return cast(Iterator[Block], iter(self.blocks))

    def _embed(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        hidden = self._look_up(input_ids)
        if self.config.embedding_scale is not None:
            # Rounded to the dtype first, as Gemma was trained.
            scale = torch.tensor(self.config.embedding_scale, dtype=hidden.dtype, device=hidden.device)
            hidden = hidden * scale
        if self.input_position is not None:
            check_positions(position_ids, self.input_position.num_positions)
            hidden = hidden + self.input_position(position_ids).to(hidden.dtype)
        if self.embedding_norm is not None:
            hidden = self.embedding_norm(hidden)
        return hidden

    def _look_up(self, input_ids: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_compiling():
            embedded: torch.Tensor = self.embedding(input_ids)
            return embedded
        try:
            embedded = self.embedding(input_ids)
        except IndexError as error:
            raise name_unknown_id(input_ids, self.vocabulary_size) from error
        return embedded

    def _drop(self, hidden: torch.Tensor) -> torch.Tensor:
        rate = self.config.dropout
        return F.dropout(hidden, rate) if self.training and rate else hidden
