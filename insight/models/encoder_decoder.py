"""The encoder-decoder: a source is read once, a target is continued token by token (arXiv 1706.03762)."""

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
        require_flags(share_embeddings=self.share_embeddings, logit_bias=self.logit_bias)
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
        """A network with fresh weights drawn from torch's global generator; see :meth:`StackConfig.build`.

        Args:
            vocabulary_size: Vocabulary of the target.
            source_vocabulary_size: Vocabulary of the source; ``None`` = that of the target.

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
        config: The configuration to build.
        vocabulary_size: Vocabulary of the target.
        source_vocabulary_size: Vocabulary of the source; ``None`` = that of the target.

    Attributes:
        config: Its configuration.
        vocabulary_size: Vocabulary of the target.
        source_vocabulary_size: Vocabulary of the source.
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
        target_mask: torch.Tensor | None = None,
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
            target_mask: bool ``(batch, target)``, False where padding stands, which routers do not count.

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
        """The states that the decoder reads; arguments as in :meth:`forward`."""
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
        """Hidden states of the target; the arguments are those of :meth:`Decoder.forward`.

        Args:
            target_ids: int64 ``(batch, target)``; with a cache those that it does not hold yet.
            encoder_states: From :meth:`encode`; not with a cache, which holds them already.
            cache: From :meth:`make_cache`; the tokens are appended to it.
            document_ids: int64 ``(batch, target)``; attention stays inside equal ids.
            position_ids: int64 ``(batch, target)``; ``None`` counts on from the cached tokens.
            lengths: int64 ``(batch,)``; with a cache, how many tokens of each row are no padding.
            token_mask: bool ``(batch, target)``, False where padding stands, which routers do not count.

        Returns:
            ``(batch, target, hidden_size)``.

        Raises:
            ConfigError: The shapes do not fit, or there are no encoder states or twice.
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
        """Two factors for losses that make the scores themselves; see :meth:`Decoder.head_product`."""
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
        """A cache for targets of these sources, which are then not needed any more; see
        :meth:`Decoder.make_cache`.

        Args:
            encoder_states: From :meth:`encode`, one row a target. For several beams a source make the cache
                first and repeat its rows with ``cache.reorder``.
            max_length: Tokens of the target that fit; ``None`` = the decoder's ``max_sequence_length``.
            dtype: Type of the stored keys and values; ``None`` = that of the weights.
            max_rollback: Newest tokens that can be taken back where sliding windows drop old ones.
        """
        batch_size = encoder_states.states.shape[0]
        return self.decoder.make_cache(batch_size, max_length, dtype, max_rollback, encoder_states)

    def num_parameters(self) -> int:
        """Trainable numbers; a shared matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_pair(self, source_length: int, target_length: int) -> int:
        """Matrix-product FLOPs of one trained pair, forward and backward, as :meth:`Decoder.flops_per_token`.

        Args:
            source_length: Tokens of the source.
            target_length: Tokens of the target.
        """
        encoding = self.encoder.flops_per_token(source_length) + 3 * self.decoder.source_flops()
        return source_length * encoding + target_length * self.decoder.flops_per_token(
            target_length, source_length
        )
