"""Networks as models that a search can ask for the scores of the next token."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from insight.models import EncoderDecoder
from insight.runtime.errors import CheckpointError, ConfigError


class EncoderDecoderScorer:
    """The next token of several translations, from an encoder-decoder with its cache.

    Args:
        network: The model, in evaluation mode.
        rows: Token ids of each source.
        max_length: Tokens that the longest translation may have.
        begin_id: The token that every target begins with.
        num_tokens: Size of the target's vocabulary; scores of a wider head are left out.
    """

    def __init__(
        self,
        network: EncoderDecoder,
        rows: Sequence[Sequence[int]],
        max_length: int,
        begin_id: int,
        num_tokens: int,
    ) -> None:
        device = network.decoder.head_weight.device
        longest = max(map(len, rows))
        source_ids = torch.zeros(len(rows), longest, dtype=torch.int64, device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        for number, row in enumerate(rows):
            source_ids[number, : len(row)] = torch.tensor(row, device=device)
        mask = torch.arange(longest, device=device) < lengths.unsqueeze(1)
        memory = network.encode(source_ids, source_mask=None if bool(mask.all()) else mask)
        self._network = network
        self._cache = network.make_cache(memory, max_length + 1)
        self._begin_ids = torch.full((len(rows),), begin_id, device=device)
        self._num_tokens = num_tokens
        self._num_sentences = len(rows)

    def first_scores(self) -> torch.Tensor:
        """Log-probabilities ``(rows, vocabulary_size)`` of the first token."""
        return self.next_scores(self._begin_ids)

    def next_scores(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Append ``token_ids`` ``(rows,)`` and score what follows, ``(rows, vocabulary_size)``.

        Raises:
            CheckpointError: The scores are not finite.
        """
        hidden = self._network.decode(token_ids.unsqueeze(1), cache=self._cache)
        logits = self._network.logits(hidden[:, -1])[:, : self._num_tokens]
        scores = logits.float().log_softmax(-1)
        if not bool(scores.sum(-1).isfinite().all()):
            raise CheckpointError(
                "the network's scores are not finite", "its weights are damaged; use an earlier checkpoint"
            )
        return scores

    def continue_beams(self, beams: torch.Tensor, sentences: torch.Tensor | None) -> None:
        """Choose the rows that go on; see :class:`insight.generation.search.ScoringModel`."""
        width = self._cache.batch_size // self._num_sentences
        self._num_sentences = beams.shape[0]
        if sentences is None:
            sentences = torch.arange(beams.shape[0], device=beams.device)
        self._cache.reorder((sentences.unsqueeze(1) * width + beams).flatten())

    def coverage(self) -> torch.Tensor:
        """Refuse the coverage penalty."""
        raise ConfigError("cannot be computed here", "use 0", option="coverage_penalty", value=True)
