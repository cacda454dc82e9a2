"""The encoder-decoder: it reads a source once and writes a target token by token (arXiv 1706.03762)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from insight.models.attention import Attention, GroupedQueryAttention
from insight.models.blocks import Block
from insight.models.caches import BeamCache, DecoderCache, EncoderStates
from insight.models.checks import require, require_flags
from insight.models.decoder import Decoder, DecoderConfig
from insight.models.encoder import Encoder, EncoderConfig
from insight.models.masks import padding_mask
from insight.models.positions import NoPosition
from insight.models.stack import Network
from insight.runtime.component import Component


@dataclass(frozen=True)
class EncoderDecoderConfig(Component):
    """An encoder, and a decoder whose blocks read it between attention and feed-forward.

    ``decoder.tie_embeddings`` ties the embedding of the target and the head; together with
    ``share_embeddings`` all three are one matrix.

    Args:
        encoder: Encoder of the source; it has no pooling.
        decoder: Decoder of the target.
        cross_attention: Attention by which every block of the decoder reads the encoder. As its position,
            ``Alibi`` with ``bidirectional`` begins at the diagonal: token i of the target looks at the
            surroundings of token i of the source first, which brings forward the moment where a translation
            model learns to read its source.
        share_embeddings: Whether source and target have one embedding, and so one vocabulary.
        logit_bias: Whether a learned bias is added to the score of each token (Marian).
    """

    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    cross_attention: Attention = GroupedQueryAttention(position=NoPosition())
    share_embeddings: bool = False
    logit_bias: bool = False

    def __post_init__(self) -> None:
        require_flags(self)
        encoder, decoder = self.encoder, self.decoder
        problem, pooling = "the decoder reads all tokens", encoder.pooling
        require(pooling is None, problem, "use pooling=null", **{"encoder.pooling": pooling})
        problem, block = "it has no place for cross-attention", decoder.block
        remedy = "use PreNorm, PostNorm, BranchNorm or SandwichNorm"
        require(block.takes_encoder_states, problem, remedy, **{"decoder.block": block})
        sizes = f"encoder.hidden_size is {encoder.hidden_size}, decoder.hidden_size {decoder.hidden_size}"
        require(
            not self.share_embeddings or encoder.hidden_size == decoder.hidden_size,
            f"one embedding has one size, and {sizes}",
            "use equal sizes or share_embeddings=false",
            share_embeddings=self.share_embeddings,
        )
        problem = "logit_bias is added to the scores as they are"
        for option, unused in (("logit_soft_cap", None), ("head_bias", False)):
            value = getattr(decoder, option)
            allowed = value is unused or not self.logit_bias
            require(allowed, problem, "use one of the two", **{f"decoder.{option}": value})
        self.cross_attention.check_cross(self.decoder.hidden_size)

    def build(self, vocabulary_size: int, source_vocabulary_size: int | None = None) -> EncoderDecoder:
        """Build a network with new weights from torch's global generator; see :meth:`StackConfig.build`.

        Args:
            vocabulary_size: Vocabulary size of the target.
            source_vocabulary_size: Vocabulary size of the source; ``None`` = that of the target.

        Raises:
            ConfigError: A vocabulary is empty, or different vocabularies share the embedding.
        """
        return EncoderDecoder.make(self, vocabulary_size, source_vocabulary_size)


class EncoderDecoder(Network):
    """The built form of :class:`EncoderDecoderConfig`; arguments as in :meth:`EncoderDecoderConfig.build`."""

    def __init__(
        self, config: EncoderDecoderConfig, vocabulary_size: int, source_vocabulary_size: int | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = vocabulary_size
        source = vocabulary_size if source_vocabulary_size is None else source_vocabulary_size
        self.source_vocabulary_size = source
        require(
            not config.share_embeddings or source == vocabulary_size,
            f"share_embeddings has one vocabulary, and that of the target is {vocabulary_size}",
            "use one tokenizer for both or share_embeddings=false",
            source_vocabulary_size=source,
        )
        self.encoder = Encoder(config.encoder, source)
        self.decoder = Decoder(
            config.decoder,
            vocabulary_size,
            config.cross_attention,
            config.encoder.hidden_size,
            self.encoder.embedding if config.share_embeddings else None,
        )
        self.logit_bias = nn.Parameter(torch.zeros(vocabulary_size)) if config.logit_bias else None

    def initialize(self) -> None:
        self.encoder.initialize()
        self.decoder.initialize()
        if self.logit_bias is not None:
            nn.init.zeros_(self.logit_bias)

    def forward(
        self,
        source_ids: Tensor,
        target_ids: Tensor,
        *,
        source_mask: Tensor | None = None,
        source_position_ids: Tensor | None = None,
        target_document_ids: Tensor | None = None,
        target_position_ids: Tensor | None = None,
        target_mask: Tensor | None = None,
    ) -> Tensor:
        """Return hidden states of the target, ready for the head: :meth:`encode`, then :meth:`decode`.

        Args:
            source_ids: int64 ``(batch, source)``.
            target_ids: int64 ``(batch, target)``; each token predicts the next.
            source_mask: bool ``(batch, source)``, False at padding, on either side.
            source_position_ids: int64 ``(batch, source)``; ``None`` counts the tokens of each row from 0.
            target_document_ids: int64 ``(batch, target)``. Padding on the right needs no id, since no token
                sees it; padding on the left needs its own id.
            target_position_ids: int64 ``(batch, target)``; ``None`` counts from 0.
            target_mask: bool ``(batch, target)``, False at padding, which routers do not count.

        Returns:
            ``(batch, target, hidden_size)``.

        Raises:
            ConfigError: The shapes do not fit.
        """
        states = self.encode(source_ids, source_mask=source_mask, position_ids=source_position_ids)
        return self.decode(
            target_ids,
            states,
            document_ids=target_document_ids,
            position_ids=target_position_ids,
            token_mask=target_mask,
        )

    def encode(
        self, source_ids: Tensor, *, source_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> EncoderStates:
        """Return the states that the decoder reads; arguments as in :meth:`forward`."""
        states = self.encoder(source_ids, token_mask=source_mask, position_ids=position_ids)
        return EncoderStates(states, padding_mask(source_mask))

    def decode(
        self,
        target_ids: Tensor,
        encoder_states: EncoderStates | None = None,
        *,
        cache: DecoderCache | None = None,
        document_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        lengths: Tensor | None = None,
        token_mask: Tensor | None = None,
    ) -> Tensor:
        """Return hidden states of the target; further arguments as in :meth:`Decoder.forward`.

        Args:
            target_ids: int64 ``(batch, target)``; with a cache only the tokens that it does not hold yet.
            encoder_states: Result of :meth:`encode`; not with a cache, which holds the states already.
            cache: Result of :meth:`make_cache`; the tokens are appended to it.

        Returns:
            ``(batch, target, hidden_size)``.

        Raises:
            ConfigError: The shapes do not fit, or encoder states are missing or given twice.
        """
        hidden: Tensor = self.decoder(
            target_ids,
            document_ids=document_ids,
            position_ids=position_ids,
            cache=cache,
            lengths=lengths,
            encoder_states=encoder_states,
            token_mask=token_mask,
        )
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token ``(..., vocabulary_size)`` for hidden states ``(..., hidden_size)``."""
        scores = self.decoder.logits(hidden)
        return scores if self.logit_bias is None else scores + self.logit_bias.to(scores.dtype)

    def layers(self) -> Iterator[Block]:
        """The blocks of the encoder, then those of the decoder."""
        yield from self.encoder.layers()
        yield from self.decoder.layers()

    def head_product(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return two factors of the scores; see :meth:`Decoder.head_product`."""
        return self.decoder.head_product(hidden, self.logit_bias)

    def make_cache(
        self,
        encoder_states: EncoderStates,
        max_length: int | None = None,
        dtype: torch.dtype | None = None,
        max_rollback: int = 0,
    ) -> DecoderCache:
        """Make a cache for targets of these sources; the states themselves are then no longer needed.

        Args:
            encoder_states: Result of :meth:`encode`, one row for each target. For a beam search,
                use :meth:`make_beam_cache`.
            max_length: Target tokens that fit; ``None`` = the decoder's ``max_sequence_length``.
            dtype: Data type of the stored keys and values; ``None`` = that of the weights.
            max_rollback: Newest tokens that can be removed again where sliding windows drop old ones.
        """
        batch_size = encoder_states.states.shape[0]
        return self.decoder.make_cache(batch_size, max_length, dtype, max_rollback, encoder_states)

    def make_beam_cache(
        self, encoder_states: EncoderStates, max_length: int | None = None, dtype: torch.dtype | None = None
    ) -> BeamCache:
        """Make a cache for a beam search over these sources; arguments as in :meth:`make_cache`."""
        num_sentences = encoder_states.states.shape[0]
        return self.decoder.make_beam_cache(num_sentences, max_length, dtype, encoder_states)

    def flops_per_pair(self, source_length: int, target_length: int) -> int:
        """Matrix-product FLOPs of one trained pair, as in :meth:`Decoder.flops_per_token`."""
        encoding = self.encoder.flops_per_token(source_length) + 3 * self.decoder.source_flops()
        decoding = self.decoder.flops_per_token(target_length, source_length)
        return source_length * encoding + target_length * decoding
