"""The encoder-decoder: a source is read once, a target is continued token by token (arXiv 1706.03762)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from insight.models.attention import Attention, GroupedQueryAttention
from insight.models.caches import DecoderCache, Memory
from insight.models.decoder import Decoder, DecoderConfig
from insight.models.encoder import Encoder, EncoderConfig
from insight.models.initialization import without_drawing
from insight.models.masks import padding_mask
from insight.models.positions import NoPosition
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class EncoderDecoderConfig(Component):
    """An encoder, and a decoder whose blocks read it between attention and feed-forward.

    ``decoder.tie_embeddings`` ties the embedding of the target and the head; together with
    ``share_embeddings`` all three are one matrix.

    Args:
        encoder: Reads the source; without pooling.
        decoder: Writes the target.
        cross_attention: How the decoder reads the encoder, in every block; without positions.
        share_embeddings: Whether source and target have one embedding, and so one vocabulary.
        logit_bias: Whether every token has a learned summand of its score (Marian).
    """

    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    cross_attention: Attention = GroupedQueryAttention(position=NoPosition())
    share_embeddings: bool = False
    logit_bias: bool = False

    def __post_init__(self) -> None:
        if self.encoder.pooling is not None:
            raise ConfigError(
                f"encoder.pooling={type(self.encoder.pooling).__name__}: the decoder reads all tokens",
                "use pooling=null",
            )
        if not self.decoder.block.takes_memory:
            raise ConfigError(
                f"decoder.block={type(self.decoder.block).__name__}: it has no place for cross-attention",
                "use PreNorm, PostNorm, BranchNorm or SandwichNorm",
            )
        sizes = self.encoder.hidden_size, self.decoder.hidden_size
        if self.share_embeddings and sizes[0] != sizes[1]:
            raise ConfigError(
                f"share_embeddings with encoder.hidden_size={sizes[0]}, decoder.hidden_size={sizes[1]}: "
                "one embedding has one size",
                "use equal sizes or share_embeddings=false",
            )
        if self.logit_bias and self.decoder.logit_soft_cap is not None:
            raise ConfigError(
                f"logit_bias with decoder.logit_soft_cap={self.decoder.logit_soft_cap}: the cap would not "
                "bound the biases",
                "use one of the two",
            )
        self.cross_attention.check_cross(self.decoder.hidden_size)

    def build(self, vocabulary_size: int, source_vocabulary_size: int | None = None) -> EncoderDecoder:
        """A network with fresh weights drawn from torch's global generator; see :meth:`DecoderConfig.build`.

        Args:
            vocabulary_size: Of the target.
            source_vocabulary_size: Of the source; ``None`` = that of the target.

        Raises:
            ConfigError: A vocabulary is empty, or the embedding is shared by different ones.
        """
        with without_drawing():
            network = EncoderDecoder(self, vocabulary_size, source_vocabulary_size)
        network.initialize()
        return network


class EncoderDecoder(nn.Module):
    """The built form of :class:`EncoderDecoderConfig`.

    Args:
        config: What to build.
        vocabulary_size: Of the target.
        source_vocabulary_size: Of the source; ``None`` = that of the target.

    Attributes:
        config: As given.
        vocabulary_size: As given.
        source_vocabulary_size: Of the source.
    """

    def __init__(
        self,
        config: EncoderDecoderConfig,
        vocabulary_size: int,
        source_vocabulary_size: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = vocabulary_size
        self.source_vocabulary_size = (
            vocabulary_size if source_vocabulary_size is None else source_vocabulary_size
        )
        if config.share_embeddings and self.source_vocabulary_size != vocabulary_size:
            raise ConfigError(
                f"vocabulary_size={vocabulary_size}, source_vocabulary_size={self.source_vocabulary_size}: "
                "share_embeddings has one vocabulary",
                "use one tokenizer for both or share_embeddings=false",
            )
        self.encoder = Encoder(config.encoder, self.source_vocabulary_size)
        self.decoder = Decoder(
            config.decoder,
            vocabulary_size,
            config.cross_attention,
            config.encoder.hidden_size,
            self.encoder.embedding if config.share_embeddings else None,
        )
        self.logit_bias = nn.Parameter(torch.zeros(vocabulary_size)) if config.logit_bias else None

    def initialize(self) -> None:
        """Give every parameter its first value: with the same seed the same, whatever it was built on."""
        self.encoder.initialize()
        self.decoder.initialize()
        if self.logit_bias is not None:
            nn.init.zeros_(self.logit_bias)

    def forward(
        self,
        source_ids: torch.Tensor,
        target_ids: torch.Tensor,
        *,
        source_mask: torch.Tensor | None = None,
        source_position_ids: torch.Tensor | None = None,
        target_document_ids: torch.Tensor | None = None,
        target_position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states of the target, ready for the head; :meth:`encode` and then :meth:`decode`.

        Args:
            source_ids: int64 ``(batch, source)``.
            target_ids: int64 ``(batch, target)``, each of which predicts the next.
            source_mask: bool ``(batch, source)``, False where padding stands, on either side.
            source_position_ids: int64 ``(batch, source)``; ``None`` counts the tokens of each row from 0.
            target_document_ids: int64 ``(batch, target)``. Padding on the right needs none: no token sees it.
                Padding on the left is a document of its own.
            target_position_ids: int64 ``(batch, target)``; ``None`` counts from 0.

        Returns:
            ``(batch, target, hidden_size)``.

        Raises:
            ConfigError: The shapes do not fit.
        """
        memory = self.encode(source_ids, source_mask=source_mask, position_ids=source_position_ids)
        return self.decode(
            target_ids, memory, document_ids=target_document_ids, position_ids=target_position_ids
        )

    def encode(
        self,
        source_ids: torch.Tensor,
        *,
        source_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> Memory:
        """What the decoder reads; arguments as in :meth:`forward`."""
        states = self.encoder(source_ids, token_mask=source_mask, position_ids=position_ids)
        return Memory(states, padding_mask(source_mask))

    def decode(
        self,
        target_ids: torch.Tensor,
        memory: Memory | None = None,
        *,
        cache: DecoderCache | None = None,
        document_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states of the target.

        Args:
            target_ids: int64 ``(batch, target)``; with a cache those that it does not hold yet.
            memory: From :meth:`encode`; not with a cache, which holds it already.
            cache: From :meth:`make_cache`; the tokens are appended to it.
            document_ids: As in :meth:`Decoder.forward`.
            position_ids: As there.
            lengths: As there.

        Returns:
            ``(batch, target, hidden_size)``.

        Raises:
            ConfigError: The shapes do not fit, or there is no memory or more than one.
        """
        hidden: torch.Tensor = self.decoder(
            target_ids,
            document_ids=document_ids,
            position_ids=position_ids,
            cache=cache,
            lengths=lengths,
            memory=memory,
        )
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of the next token ``(..., vocabulary_size)`` for hidden states ``(..., hidden_size)``."""
        scores = self.decoder.logits(hidden)
        return scores if self.logit_bias is None else scores + self.logit_bias.to(scores.dtype)

    def make_cache(
        self,
        memory: Memory,
        max_length: int | None = None,
        dtype: torch.dtype | None = None,
        max_rollback: int = 0,
    ) -> DecoderCache:
        """A cache for targets of these sources, not needed any more then; see :meth:`Decoder.make_cache`.

        Args:
            memory: From :meth:`encode`, one row a target. For several beams a source make the cache first and
                repeat its rows with ``cache.reorder``.
            max_length: Tokens of the target that fit; ``None`` = the decoder's ``max_sequence_length``.
            dtype: As there.
            max_rollback: As there.
        """
        return self.decoder.make_cache(memory.states.shape[0], max_length, dtype, max_rollback, memory)

    def num_parameters(self) -> int:
        """Trainable numbers; a shared matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_pair(self, source_length: int, target_length: int) -> int:
        """Matrix-product FLOPs of one trained pair, forward and backward, as :meth:`Decoder.flops_per_token`.

        Args:
            source_length: Tokens of the source.
            target_length: Tokens of the target.
        """
        encoding = self.encoder.flops_per_token(source_length) + 3 * self.decoder.memory_flops()
        return source_length * encoding + target_length * self.decoder.flops_per_token(
            target_length, source_length
        )
