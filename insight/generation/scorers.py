"""Networks as models that a search can ask for the scores of the next token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from insight.generation.alignment import recorded_cross_attention
from insight.generation.packing import PackedWeights
from insight.generation.sampler import require_finite
from insight.models import BeamCache, Decoder, EncoderDecoder
from insight.runtime.errors import ConfigError

_LEAST_READ = 1e-9
"""Attention that a source token gets at least, so that its logarithm is a number."""


class DecoderScorer:
    """The next token of several texts, from a decoder with its cache.

    Args:
        network: The model, in evaluation mode.
        rows: Token ids that each text begins with, equally many.
        max_length: Tokens that the longest text may get.
        num_tokens: Size of the vocabulary; scores of a wider head are left out.
        weights: The packed weights of the network; ``None`` packs those of the head.

    Raises:
        ConfigError: The texts are not equally long, or the positions allow no cache of that length.
    """

    def __init__(
        self,
        network: Decoder,
        rows: Sequence[Sequence[int]],
        max_length: int,
        num_tokens: int,
        weights: PackedWeights | None = None,
    ) -> None:
        if len({len(row) for row in rows}) > 1:
            raise ConfigError("the texts have different lengths", "search those of one length together")
        cache = network.make_beam_cache(len(rows), len(rows[0]) + max_length)
        first = torch.tensor([list(row) for row in rows], device=network.head_weight.device)
        self._begin(network, network, cache, first, num_tokens, weights)

    def _begin(
        self,
        network: Decoder | EncoderDecoder,
        decoder: Decoder,
        cache: BeamCache,
        first: Tensor,
        num_tokens: int,
        weights: PackedWeights | None,
    ) -> None:
        self._decoder, self._cache, self._first, self._num_tokens = decoder, cache, first, num_tokens
        self._logits = (weights or PackedWeights(network)).head(network)

    def first_scores(self) -> Tensor:
        """Log-probabilities ``(rows, vocabulary_size)`` of the first token."""
        return self._scores(self._first)

    def next_scores(self, token_ids: Tensor) -> Tensor:
        """Append ``token_ids`` ``(rows,)`` and score what follows, ``(rows, vocabulary_size)``.

        Raises:
            CheckpointError: The scores are not finite.
        """
        return self._scores(token_ids.unsqueeze(1))

    def continue_beams(self, beams: Tensor, sentences: Tensor | None) -> None:
        """Choose the rows that go on; see :class:`insight.generation.search.ScoringModel`."""
        self._cache.choose_beams(beams, sentences)

    def coverage(self) -> Tensor:
        """Refuse the coverage penalty, since there is no source."""
        problem = "a decoder reads no source"
        raise ConfigError(problem, "use 0", option="coverage_penalty", value="on")

    def _decode(self, token_ids: Tensor) -> Tensor:
        hidden: Tensor = self._decoder(token_ids, cache=self._cache)
        return hidden

    def _scores(self, token_ids: Tensor) -> Tensor:
        logits = self._logits(self._decode(token_ids)[:, -1])[:, : self._num_tokens]
        scores = logits.float().log_softmax(-1)
        if bool(scores[:, 0].isnan().any()):  # one number that is not finite makes NaN of its whole row
            require_finite(scores)
        return scores


class EncoderDecoderScorer(DecoderScorer):
    """The next token of several translations, from an encoder-decoder with its cache.

    Args:
        network: The model, in evaluation mode.
        rows: Token ids of each source.
        max_length: Tokens that the longest translation may have.
        begin_id: The token that every target begins with.
        num_tokens: Size of the target's vocabulary; scores of a wider head are left out.
        weights: The packed weights of the network; ``None`` packs those of the head.
        measures_coverage: Whether :meth:`coverage` is measured, which is slow.
    """

    def __init__(
        self,
        network: EncoderDecoder,
        rows: Sequence[Sequence[int]],
        max_length: int,
        begin_id: int,
        num_tokens: int,
        weights: PackedWeights | None = None,
        measures_coverage: bool = False,
    ) -> None:
        device = network.decoder.head_weight.device
        longest = max(map(len, rows))
        source_ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = torch.arange(longest, device=device) < lengths.unsqueeze(1)
        states = network.encode(source_ids, source_mask=None if min(map(len, rows)) == longest else mask)
        cache = network.make_beam_cache(states, max_length + 1)
        first = torch.full((len(rows), 1), begin_id, device=device)
        self._begin(network, network.decoder, cache, first, num_tokens, weights)
        self._network = network
        # How much attention each source token got from each row; padding needs none.
        self._read = (~mask).unsqueeze(1).double() if measures_coverage else None

    def continue_beams(self, beams: Tensor, sentences: Tensor | None) -> None:
        super().continue_beams(beams, sentences)
        if self._read is not None:
            kept = self._read if sentences is None else self._read[sentences]
            self._read = kept.gather(1, beams.unsqueeze(2).expand(-1, -1, kept.shape[2]))

    def coverage(self) -> Tensor:
        """The sum of ``log(min(attention, 1))`` over the source, ``(rows,)``.

        The attention of a source token is the sum over all steps of its weight in the last layer's
        cross-attention, the mean of all heads.
        """
        assert self._read is not None
        return self._read.clamp(_LEAST_READ, 1.0).log().sum(2).flatten()

    def _decode(self, token_ids: Tensor) -> Tensor:
        if self._read is None:
            return super()._decode(token_ids)
        with recorded_cross_attention(self._network) as weights:
            hidden = super()._decode(token_ids)
        self._read = self._read + weights[-1].mean(1).view_as(self._read).clamp_min(0)
        return hidden
