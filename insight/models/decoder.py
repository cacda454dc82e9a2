"""The decoder: token ids to hidden states to scores of the next token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from insight.models.attention import Attention
from insight.models.attention.kernels import soft_cap
from insight.models.caches import (
    BeamCache,
    BeamTree,
    CacheShape,
    CrossCache,
    DecoderCache,
    EncoderStates,
    LayerCache,
)
from insight.models.checks import require, require_flags, require_number, require_positive
from insight.models.input_checks import check_encoder_states, check_inputs
from insight.models.linear import OutputHead, TokenEmbedding
from insight.models.masks import Mask, PrefixMask, causal_mask
from insight.models.stack import StackConfig, TokenStack


@dataclass(frozen=True)
class DecoderConfig(StackConfig):
    """A causal decoder-only transformer (Llama's layout by default).

    Args:
        tie_embeddings: Whether the token embedding also serves as output head.
        logit_soft_cap: Bound c of the scores, c * tanh(scores / c); ``None`` for none.
        output_scale: Factor of the hidden states before the head (T5: hidden_size ** -0.5); null for none.
        head_bias: Whether the head adds a learned bias to the score of each token (GPT-J, Phi-2).
    """

    tie_embeddings: bool = False
    logit_soft_cap: float | None = None
    output_scale: float | None = None
    head_bias: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number(0, 1e6, "use 15 or 30, or null for none", logit_soft_cap=self.logit_soft_cap)
        require_number(0, 1e6, "use hidden_size ** -0.5, or null for none", output_scale=self.output_scale)
        require_flags(self)
        problem = "the bias belongs to a head of its own"
        remedy = "use tie_embeddings=false or head_bias=false"
        require(not (self.head_bias and self.tie_embeddings), problem, remedy, head_bias=True)

    def build(self, vocabulary_size: int) -> Decoder:
        return Decoder.make(self, vocabulary_size)


class Decoder(TokenStack):
    """The built form of :class:`DecoderConfig`, with or without an encoder; arguments as in TokenStack."""

    config: DecoderConfig

    def __init__(
        self,
        config: DecoderConfig,
        vocabulary_size: int,
        cross_attention: Attention | None = None,
        encoder_size: int | None = None,
        embedding: TokenEmbedding | None = None,
    ) -> None:
        super().__init__(config, vocabulary_size, cross_attention, encoder_size, embedding)
        self.head: OutputHead | None = None
        if not config.tie_embeddings:
            self.head = OutputHead(config.hidden_size, vocabulary_size, config.head_bias)
        self.reads_encoder = cross_attention is not None

    @property
    def head_weight(self) -> Tensor:
        """The output matrix ``(vocabulary_size, hidden_size)``; see :meth:`head_product` for losses."""
        return self.embedding.weight if self.head is None else self.head.weight

    def head_product(self, hidden: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return factors of the scores before :meth:`cap`, ``first @ second.T``, for losses that need them.

        Without ``bias`` or a bias of the head these are ``hidden`` ``(..., hidden_size)`` and
        :attr:`head_weight`. A bias is one more column of the matrix, and ``hidden`` gets a channel of ones.
        """
        if bias is None and self.head is not None:
            bias = self.head.bias
        if bias is None:
            return hidden, self.head_weight
        weight = torch.cat([self.head_weight, bias.unsqueeze(1)], dim=1)
        return torch.cat([hidden, torch.ones_like(hidden[..., :1])], dim=-1), weight

    def forward(
        self,
        input_ids: Tensor,
        *,
        document_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: DecoderCache | None = None,
        prefix_lengths: Tensor | None = None,
        lengths: Tensor | None = None,
        encoder_states: EncoderStates | None = None,
        token_mask: Tensor | None = None,
    ) -> Tensor:
        """Return hidden states ``(batch, sequence, hidden_size)`` after the last norm, ready for the head.

        Args:
            input_ids: int64 ``(batch, sequence)``.
            document_ids: int64 ``(batch, sequence)``; attention stays inside equal ids. Padding has its own.
            position_ids: int64 ``(batch, sequence)``; ``None`` continues from the cached tokens.
            cache: Result of :meth:`make_cache`; the tokens are appended to it.
            prefix_lengths: int64 ``(batch,)``; this many tokens at the start of each row see one another in
                both directions. With a cache, the prefix must be in its first chunk.
            lengths: int64 ``(batch,)``; with a cache, how many tokens of each row are not padding, which
                stands to their right. Each row then counts its own positions.
            encoder_states: The states that cross-attention reads; not with a cache, which holds them already.
            token_mask: bool ``(batch, sequence)``, False at padding, which routers of experts then do not
                count; it does not change which keys a query sees.

        Raises:
            ConfigError: The shapes do not fit, the cache is full, or two arguments exclude each other.
        """
        check_inputs(input_ids, document_ids, position_ids, cache, prefix_lengths, lengths, token_mask)
        check_encoder_states(self.reads_encoder, encoder_states, cache, input_ids.shape[0])
        step = cache.place(input_ids, lengths) if cache is not None else None
        if position_ids is None and step is not None:
            position_ids = step.positions
        if position_ids is None:
            start = cache.length if cache is not None else 0
            position_ids = torch.arange(start, start + input_ids.shape[1], device=input_ids.device)
        mask: Mask = causal_mask(document_ids) if prefix_lengths is None else PrefixMask(prefix_lengths)
        hidden = self.embed(input_ids, position_ids)
        states: Sequence[EncoderStates | CrossCache] = ()
        if encoder_states is not None:
            states = [encoder_states] * len(self.blocks)
        if cache is not None:
            cache.begin(step)
            states = cache.cross_caches
        hidden = self.run(hidden, position_ids, mask, cache, states, token_mask)
        return hidden if self.config.output_scale is None else hidden * self.config.output_scale

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token ``(..., vocabulary_size)`` for hidden states ``(..., hidden_size)``."""
        # Through the module if there is one, so that it may be quantized or compiled.
        scores = F.linear(hidden, self.embedding.weight) if self.head is None else self.head(hidden)
        return self.cap(scores)

    def cap(self, logits: Tensor) -> Tensor:
        """Apply the configured soft cap, for losses that compute the scores themselves."""
        return soft_cap(logits, self.config.logit_soft_cap)

    def make_cache(
        self,
        batch_size: int,
        max_length: int | None = None,
        dtype: torch.dtype | None = None,
        max_rollback: int = 0,
        encoder_states: EncoderStates | None = None,
    ) -> DecoderCache:
        """Make an empty cache on the device of the weights.

        Args:
            batch_size: Number of rows.
            max_length: Number of tokens that fit; ``None`` = ``max_sequence_length``.
            dtype: Data type of the stored keys and values; ``None`` = that of the weights.
            max_rollback: Newest tokens that can be removed again where sliding windows drop old ones.
            encoder_states: The states that cross-attention reads; their keys and values are computed once,
                here.

        Raises:
            ConfigError: A number is too small, the positions allow no cache of that length, or the encoder's
                states do not fit.
        """
        max_length = self.config.max_sequence_length if max_length is None else max_length
        require_positive(batch_size=batch_size, max_length=max_length)
        require_positive(minimum=0, max_rollback=max_rollback)
        weight = self.embedding.weight
        shape = CacheShape(batch_size, max_length, dtype or weight.dtype, weight.device, max_rollback)
        layers, cross_caches = self._caches(shape, encoder_states)
        return DecoderCache(layers, batch_size, max_length, cross_caches)

    def make_beam_cache(
        self,
        num_sentences: int,
        max_length: int | None = None,
        dtype: torch.dtype | None = None,
        encoder_states: EncoderStates | None = None,
    ) -> BeamCache:
        """Make an empty cache for a beam search, with one beam for each sentence at first.

        Arguments and errors are those of :meth:`make_cache`.
        """
        max_length = self.config.max_sequence_length if max_length is None else max_length
        require_positive(num_sentences=num_sentences, max_length=max_length)
        weight = self.embedding.weight
        tree = BeamTree(num_sentences, weight.device)
        shape = CacheShape(num_sentences, max_length, dtype or weight.dtype, weight.device, tree=tree)
        layers, cross_caches = self._caches(shape, encoder_states)
        return BeamCache(layers, tree, max_length, cross_caches)

    def _caches(
        self, shape: CacheShape, states: EncoderStates | None
    ) -> tuple[list[LayerCache], list[CrossCache]]:
        """Return the caches of all layers, and the keys and values of the encoder's states for each."""
        check_encoder_states(self.reads_encoder, states, None, shape.batch_size)
        layers = [block.attention.make_cache(shape) for block in self.layers()]
        cross_caches = [
            CrossCache(states, block.cross_attention.project_states, shape.dtype)
            for block in self.layers()
            if states is not None and block.cross_attention is not None
        ]
        return layers, cross_caches

    def flops_per_token(self, sequence_length: int, source_length: int = 0) -> int:
        """Matrix-product FLOPs of one trained token: those of :meth:`forward_flops` and the head, times 3."""
        return 3 * (2 * self.head_weight.numel() + self.forward_flops(sequence_length, source_length))
