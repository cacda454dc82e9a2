"""The decoder: token ids to hidden states to scores of the next token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from insight.models.attention import Attention
from insight.models.attention.kernels.base import soft_cap
from insight.models.caches import CrossCache, DecoderCache, Memory
from insight.models.checks import require_positive
from insight.models.initialization import without_drawing
from insight.models.input_checks import check_inputs, check_memory
from insight.models.linear import OutputHead, TokenEmbedding
from insight.models.masks import Mask, PrefixMask, causal_mask
from insight.models.stack import StackConfig, TokenStack
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class DecoderConfig(StackConfig):
    """A causal decoder-only transformer (Llama's layout by default).

    Args:
        hidden_size: Width of the residual stream.
        num_layers: Blocks.
        attention: Token mixer of every block.
        feed_forward: Feed-forward layer of every block.
        norm: Normalisation before each branch and before the head.
        max_sequence_length: Tokens of context; generation slides or refuses beyond it.
        dropout: Probability of dropping a channel of the embedding or of a block's branch in training.
        initialization: First values of the matrices.
        block: Where a block normalises, and whether its branches follow one another.
        input_position: Positions added to the token embedding; null where attention is told them.
        embedding_norm: Normalisation of the embedding (BLOOM); null for none.
        embedding_scale: Factor of the embedding (Gemma: the root of hidden_size); null for none.
        activation_checkpointing: What training computes again instead of keeping; null keeps all. It changes
            no result, so networks that differ in it alone are equal.
        tie_embeddings: Whether the token embedding also serves as output head.
        logit_soft_cap: Bound c of the scores, c * tanh(scores / c); ``None`` for none.
        output_scale: Factor of the hidden states before the head (T5: hidden_size ** -0.5); null for none.
    """

    tie_embeddings: bool = False
    logit_soft_cap: float | None = None
    output_scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.logit_soft_cap is not None and not self.logit_soft_cap > 0:
            raise ConfigError(
                f"logit_soft_cap={self.logit_soft_cap}: the bound of the scores must be above 0",
                "use 15 or 30, or null for none",
            )
        if self.output_scale is not None and not self.output_scale > 0:
            raise ConfigError(
                f"output_scale={self.output_scale}: the factor of the hidden states must be above 0",
                "use hidden_size ** -0.5, or null for none",
            )

    def build(self, vocabulary_size: int) -> Decoder:
        with without_drawing():
            network = Decoder(self, vocabulary_size)
        network.initialize()
        return network


class Decoder(TokenStack):
    """The built form of :class:`DecoderConfig`, with or without an encoder to read.

    Args:
        config: What to build.
        vocabulary_size: Rows of the embedding and of the head.
        cross_attention: What reads an encoder's states in every block; ``None`` without an encoder.
        memory_size: Size of those states.
        embedding: Of an encoder that shares it; ``None`` makes one.

    Attributes:
        config: As given.
        vocabulary_size: As given.
    """

    config: DecoderConfig

    def __init__(
        self,
        config: DecoderConfig,
        vocabulary_size: int,
        cross_attention: Attention | None = None,
        memory_size: int | None = None,
        embedding: TokenEmbedding | None = None,
    ) -> None:
        super().__init__(config, vocabulary_size, cross_attention, memory_size, embedding)
        self.head = None if config.tie_embeddings else OutputHead(config.hidden_size, vocabulary_size)
        self.reads_memory = cross_attention is not None

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
        memory: Memory | None = None,
    ) -> torch.Tensor:
        """Hidden states after the last norm, ready for the head.

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
            memory: What cross-attention reads; not with a cache, which holds it already.

        Returns:
            ``(batch, sequence, hidden_size)``.

        Raises:
            ConfigError: The shapes do not fit, the cache is full, or two arguments exclude each other.
        """
        check_inputs(input_ids, document_ids, position_ids, cache, prefix_lengths, lengths)
        check_memory(self.reads_memory, memory, cache, input_ids.shape[0])
        start = cache.length if cache is not None else 0
        step = cache.plan(input_ids, lengths) if cache is not None else None
        if position_ids is None and step is not None:
            position_ids = step.positions
        elif position_ids is None:
            position_ids = torch.arange(start, start + input_ids.shape[1], device=input_ids.device)
        mask: Mask = causal_mask(document_ids) if prefix_lengths is None else PrefixMask(prefix_lengths)
        hidden = self.embed(input_ids, position_ids)
        memories: Sequence[Memory | CrossCache] = () if memory is None else [memory] * len(self.blocks)
        if cache is not None:
            cache.begin(step)
            memories = cache.memories
        hidden = self.run(hidden, position_ids, mask, cache, memories)
        return hidden if self.config.output_scale is None else hidden * self.config.output_scale

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of the next token ``(..., vocabulary_size)`` for hidden states ``(..., hidden_size)``."""
        # Through the module where there is one, so that it may be quantized or compiled.
        scores = F.linear(hidden, self.embedding.weight) if self.head is None else self.head(hidden)
        return self.cap(scores)

    def cap(self, logits: torch.Tensor) -> torch.Tensor:
        """The soft cap of the configuration, for losses that make the scores themselves."""
        return soft_cap(logits, self.config.logit_soft_cap)

    def make_cache(
        self,
        batch_size: int,
        max_length: int | None = None,
        dtype: torch.dtype | None = None,
        max_rollback: int = 0,
        memory: Memory | None = None,
    ) -> DecoderCache:
        """An empty cache on the device of the weights.

        Args:
            batch_size: Rows.
            max_length: Tokens that fit; ``None`` = ``max_sequence_length``.
            dtype: Of the stored keys and values; ``None`` = that of the weights.
            max_rollback: Newest tokens that can be taken back where sliding windows drop old ones.
            memory: What cross-attention reads; its keys and values are computed here, once.

        Raises:
            ConfigError: A number is too small, the positions allow no cache of that length, or the memory is
                missing, too much, or of other rows.
        """
        max_length = self.config.max_sequence_length if max_length is None else max_length
        require_positive(batch_size=batch_size, max_length=max_length)
        if max_rollback < 0:
            raise ConfigError(f"max_rollback={max_rollback}: must not be negative", "use 0 for none")
        check_memory(self.reads_memory, memory, None, batch_size)
        weight = self.embedding.weight
        stored = dtype or weight.dtype
        layers, memories = [], []
        for block in self.layers():
            layers.append(
                block.attention.make_cache(batch_size, max_length, stored, weight.device, max_rollback)
            )
            if block.cross_attention is not None and memory is not None:
                memories.append(CrossCache(memory, block.cross_attention.project_memory, stored))
        return DecoderCache(layers, max_length, batch_size, memories)

    def flops_per_token(self, sequence_length: int, memory_length: int = 0) -> int:
        """Matrix-product FLOPs of one trained token, forward and backward (twice the forward).

        Counted as in :meth:`TokenStack.forward_flops`, which is per token and forward only.

        Args:
            sequence_length: Tokens that each sequence holds.
            memory_length: States that cross-attention reads.
        """
        return 3 * (2 * self.head_weight.numel() + self.forward_flops(sequence_length, memory_length))
