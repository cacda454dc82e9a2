"""The decoder: token ids to hidden states to scores of the next token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from insight.models.attention import Attention, GroupedQueryAttention, causal_mask
from insight.models.block import Block
from insight.models.caches import DecoderCache
from insight.models.checks import require_positive
from insight.models.feed_forward import FeedForward, SwiGLU
from insight.models.initialization import Initialization, ScaledInitialization
from insight.models.linear import OutputHead, Projection, TokenEmbedding
from insight.models.norms import Norm, RMSNorm
from insight.models.positions import Position, PositionEncoding
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
        encodings: dict[tuple[Position, int], PositionEncoding] = {}

        def build_position(position: Position, head_dim: int) -> PositionEncoding:
            if (position, head_dim) not in encodings:
                encodings[position, head_dim] = position.build(head_dim)
            return encodings[position, head_dim]

        size = config.hidden_size
        self.embedding = TokenEmbedding(vocabulary_size, size)
        self.blocks = nn.ModuleList(
            Block(
                config.attention.build(size, build_position),
                config.feed_forward.build(size),
                config.norm.build(size),
                config.norm.build(size),
                config.dropout,
            )
            for _ in range(config.num_layers)
        )
        self.norm = config.norm.build(size)
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
    ) -> torch.Tensor:
        """Hidden states after the last norm.

        Args:
            input_ids: int64 ``(batch, sequence)``.
            document_ids: int64 ``(batch, sequence)``; attention stays inside equal ids.
            position_ids: int64 ``(batch, sequence)``; ``None`` counts on from the cached tokens.
            cache: From :meth:`make_cache`; the tokens are appended to it.

        Returns:
            ``(batch, sequence, hidden_size)``.

        Raises:
            ConfigError: The shapes do not fit, the cache is full, or documents are given with a cache.
        """
        self._check_inputs(input_ids, document_ids, position_ids, cache)
        start = cache.length if cache is not None else 0
        if position_ids is None:
            position_ids = torch.arange(start, start + input_ids.shape[1], device=input_ids.device)
        mask = causal_mask(document_ids)
        tables: dict[PositionEncoding, PositionTables] = {}
        hidden = self._drop(self.embedding(input_ids))
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
        self, batch_size: int, max_length: int | None = None, dtype: torch.dtype | None = None
    ) -> DecoderCache:
        """An empty cache on the device of the weights.

        Args:
            batch_size: Rows.
            max_length: Tokens that fit; ``None`` = ``max_sequence_length``.
            dtype: Of the stored keys and values; ``None`` = that of the weights.

        Raises:
            ConfigError: A number is below 1.
        """
        max_length = self.config.max_sequence_length if max_length is None else max_length
        require_positive(batch_size=batch_size, max_length=max_length)
        weight = self.embedding.weight
        layers = [
            block.attention.make_cache(batch_size, max_length, dtype or weight.dtype, weight.device)
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

    def _drop(self, hidden: torch.Tensor) -> torch.Tensor:
        rate = self.config.dropout
        return F.dropout(hidden, rate) if self.training and rate else hidden

    def _check_inputs(
        self,
        input_ids: torch.Tensor,
        document_ids: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        cache: DecoderCache | None,
    ) -> None:
        if input_ids.ndim != 2 or input_ids.dtype not in (torch.int64, torch.int32):
            raise ConfigError(
                f"input_ids is {input_ids.dtype} of shape {tuple(input_ids.shape)}, not (batch, sequence)",
                "pass token ids, one row a sequence",
            )
        for name, ids in (("document_ids", document_ids), ("position_ids", position_ids)):
            if ids is not None and ids.shape != input_ids.shape:
                raise ConfigError(
                    f"{name} has shape {tuple(ids.shape)}, input_ids {tuple(input_ids.shape)}",
                    f"give {name} the shape of input_ids",
                )
        if cache is not None:
            if document_ids is not None:
                raise ConfigError(
                    "document_ids with a cache: cached tokens carry no document ids",
                    "decode each document in a row of its own",
                )
            cache.require_room(input_ids.shape[1])
