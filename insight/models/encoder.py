"""The encoder: token ids to bidirectional hidden states, or to one vector for each sequence."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from insight.models.input_checks import check_encoder_inputs
from insight.models.masks import BidirectionalMask, document_mask, padding_mask
from insight.models.stack import StackConfig, TokenStack
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError

PooledBy = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Pooling(Component):
    """The way in which the hidden states of a sequence become one vector."""

    @abstractmethod
    def build(self) -> PooledBy:
        """Return the function that pools ``(batch, sequence, hidden_size)`` to ``(batch, hidden_size)``.

        Its second argument is bool ``(batch, sequence)``, False at padding on either side; ``None`` means no
        padding.
        """


@dataclass(frozen=True)
class MeanPooling(Pooling):
    """The mean over all tokens (Reimers and Gurevych 2019, arXiv 1908.10084); 0 for a row without tokens."""

    def build(self) -> PooledBy:
        return _mean


@dataclass(frozen=True)
class FirstTokenPooling(Pooling):
    """The first token, added for this by the tokenizer (BERT, Devlin et al. 2018, arXiv 1810.04805)."""

    def build(self) -> PooledBy:
        return _first


@dataclass(frozen=True)
class LastTokenPooling(Pooling):
    """The last token, usually the end of the text (Wang et al. 2023, arXiv 2401.00368)."""

    def build(self) -> PooledBy:
        return _last


def _mean(hidden: Tensor, tokens: Tensor | None) -> Tensor:
    if tokens is None:
        return hidden.mean(dim=1)
    # Masked, not multiplied by 0: the states of padding may be NaN or infinite.
    summed = hidden.masked_fill(~tokens.unsqueeze(-1), 0).sum(dim=1)
    return summed / tokens.sum(dim=1, keepdim=True).clamp_min(1).to(hidden.dtype)


def _first(hidden: Tensor, tokens: Tensor | None) -> Tensor:
    return hidden[:, 0] if tokens is None else _pick(hidden, tokens.long().argmax(dim=1))


def _last(hidden: Tensor, tokens: Tensor | None) -> Tensor:
    if tokens is None:
        return hidden[:, -1]
    places = torch.arange(tokens.shape[1], device=tokens.device)
    return _pick(hidden, places.where(tokens, 0).amax(dim=1))


def _pick(hidden: Tensor, places: Tensor) -> Tensor:
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), places]


@dataclass(frozen=True)
class EncoderConfig(StackConfig):
    """A transformer in which every token sees its whole sequence; a ``window`` extends to both sides.

    Args:
        pooling: ``MeanPooling``, ``FirstTokenPooling`` or ``LastTokenPooling`` for one vector per sequence;
            null for one per token.
    """

    pooling: Pooling | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.attention.check_bidirectional()

    def build(self, vocabulary_size: int) -> Encoder:
        return Encoder.make(self, vocabulary_size)


class Encoder(TokenStack):
    """The built form of :class:`EncoderConfig`; ``vocabulary_size`` is the rows of the embedding."""

    config: EncoderConfig

    def __init__(self, config: EncoderConfig, vocabulary_size: int) -> None:
        super().__init__(config, vocabulary_size)
        self.pool = None if config.pooling is None else config.pooling.build()

    def forward(
        self,
        input_ids: Tensor,
        *,
        token_mask: Tensor | None = None,
        document_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Return hidden states after the last norm, or one vector for each sequence.

        Args:
            input_ids: int64 ``(batch, sequence)``.
            token_mask: bool ``(batch, sequence)``, False at padding, on either side.
            document_ids: int64 ``(batch, sequence)``, for packed texts; attention stays inside equal ids.
            position_ids: int64 ``(batch, sequence)``; ``None`` counts the tokens of each row from 0.

        Returns:
            ``(batch, sequence, hidden_size)``; with pooling ``(batch, hidden_size)``. The states of padding
            are meaningless but finite.

        Raises:
            ConfigError: The shapes do not fit, or two arguments exclude each other.
        """
        check_encoder_inputs(input_ids, token_mask, document_ids, position_ids)
        if self.pool is not None and document_ids is not None:
            raise ConfigError(
                "document_ids with pooling: a row has one vector, not one a document", "pass one text a row"
            )
        if position_ids is None and token_mask is not None:
            position_ids = (token_mask.cumsum(dim=1) - 1).clamp_min(0)
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)
        mask = padding_mask(token_mask)
        if document_ids is not None:
            mask = document_mask(document_ids, BidirectionalMask())
        hidden = self.embed(input_ids, position_ids)
        hidden = self.run(hidden, position_ids, mask, real_tokens=token_mask)
        return hidden if self.pool is None else self.pool(hidden, token_mask)

    def flops_per_token(self, sequence_length: int) -> int:
        """Matrix-product FLOPs of one trained token, forward and backward, counted as for a decoder."""
        return 3 * self.forward_flops(sequence_length)
