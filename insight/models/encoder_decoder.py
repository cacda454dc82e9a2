"""The encoder-decoder: it reads a source once and writes a target token by token (arXiv 1706.03762)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from insight.models.attention import Attention, GroupedQueryAttention
from insight.models.caches import DecoderCache, EncoderStates
from insight.models.checks import require_flags
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
        encoder: Encoder of the source; it has no pooling.
        decoder: Decoder of the target.
        cross_attention: Attention by which every block of the decoder reads the encoder; without positions.
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
        if self.encoder.pooling is not None:
            raise ConfigError(
                "the decoder reads all tokens",
                "use pooling=null",
                option="encoder.pooling",
                value=type(self.encoder.pooling).__name__,
            )
        if not self.decoder.block.takes_encoder_states:
            raise ConfigError(
                "it has no place for cross-attention",
                "use PreNorm, PostNorm, BranchNorm or SandwichNorm",
                option="decoder.block",
                value=type(self.decoder.block).__name__,
            )
        sizes = self.encoder.hidden_size, self.decoder.hidden_size
        if self.share_embeddings and sizes[0] != sizes[1]:
            raise ConfigError(
                f"one embedding has one size, and encoder.hidden_size is {sizes[0]}, decoder.hidden_size "
                f"{sizes[1]}",
                "use equal sizes or share_embeddings=false",
                option="share_embeddings",
                value=self.share_embeddings,
            )
        for option, value in (
            ("decoder.logit_soft_cap", self.decoder.logit_soft_cap),
            ("decoder.head_bias", self.decoder.head_bias or None),
        ):
            if self.logit_bias and value is not None:
                raise ConfigError(
                    "logit_bias is added to the scores as they are",
                    "use one of the two",
                    option=option,
                    value=value,
                )
        self.cross_attention.check_cross(self.decoder.hidden_size)

    def build(self, vocabulary_size: int, source_vocabulary_size: int | None = None) -> EncoderDecoder:
        """Build a network with new weights from torch's global generator; see :meth:`StackConfig.build`.

        Args:
            vocabulary_size: Vocabulary size of the target.
            source_vocabulary_size: Vocabulary size of the source; ``None`` = that of the target.

        Raises:
            ConfigError: A vocabulary is empty, or different vocabularies share the embedding.
        """
        with without_drawing():
            network = EncoderDecoder(self, vocabulary_size, source_vocabulary_size)
        network.initialize()
        return network


class EncoderDecoder(nn.Module):
    """The built form of :class:`EncoderDecoderConfig`; arguments as in :meth:`EncoderDecoderConfig.build`."""

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
                f"share_embeddings has one vocabulary, and that of the target is {vocabulary_size}",
                "use one tokenizer for both or share_embeddings=false",
                option="source_vocabulary_size",
                value=self.source_vocabulary_size,
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
        """Give every parameter its first value, which depends on the seed, not on the device of the build."""
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
        target_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
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
        self,
        source_ids: torch.Tensor,
        *,
        source_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> EncoderStates:
        """Return the states that the decoder reads; arguments as in :meth:`forward`."""
        states = self.encoder(source_ids, token_mask=source_mask, position_ids=position_ids)
        return EncoderStates(states, padding_mask(source_mask))

    def decode(
        self,
        target_ids: torch.Tensor,
        encoder_states: EncoderStates | None = None,
        *,
        cache: DecoderCache | None = None,
        document_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
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
        hidden: torch.Tensor = self.decoder(
            target_ids,
            document_ids=document_ids,
            position_ids=position_ids,
            cache=cache,
            lengths=lengths,
            encoder_states=encoder_states,
            token_mask=token_mask,
        )
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of the next token ``(..., vocabulary_size)`` for hidden states ``(..., hidden_size)``."""
        scores = self.decoder.logits(hidden)
        return scores if self.logit_bias is None else scores + self.logit_bias.to(scores.dtype)

    def head_product(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return two factors of the scores; see :meth:`Decoder.head_product`."""
        if self.logit_bias is None:
            return self.decoder.head_product(hidden)
        weight = torch.cat([self.decoder.head_weight, self.logit_bias.unsqueeze(1)], dim=1)
        return torch.cat([hidden, torch.ones_like(hidden[..., :1])], dim=-1), weight

    def make_cache(
        self,
        encoder_states: EncoderStates,
        max_length: int | None = None,
        dtype: torch.dtype | None = None,
        max_rollback: int = 0,
    ) -> DecoderCache:
        """Make a cache for targets of these sources; the states themselves are then no longer needed.

        Args:
            encoder_states: Result of :meth:`encode`, one row for each target. For several beams of a source,
                make the cache first and repeat its rows with ``cache.reorder``.
            max_length: Target tokens that fit; ``None`` = the decoder's ``max_sequence_length``.
            dtype: Data type of the stored keys and values; ``None`` = that of the weights.
            max_rollback: Newest tokens that can be removed again where sliding windows drop old ones.
        """
        batch_size = encoder_states.states.shape[0]
        return self.decoder.make_cache(batch_size, max_length, dtype, max_rollback, encoder_states)

    def num_parameters(self) -> int:
        """Number of trainable parameters; a shared matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_pair(self, source_length: int, target_length: int) -> int:
        """Matrix-product FLOPs of one trained pair, forward and backward, as :meth:`Decoder.flops_per_token`.

        ``source_length`` and ``target_length`` are numbers of tokens.
        """
        encoding = self.encoder.flops_per_token(source_length) + 3 * self.decoder.source_flops()
        return source_length * encoding + target_length * self.decoder.flops_per_token(
            target_length, source_length
        )
