"""How small a vocabulary may become: sizes tried on a text, chosen by number of tokens or by the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from insight.data.tokenizer_quality import NamedText, TokenizerQuality, measure_tokenizer, text_batches
from insight.data.tokenizers import BaseTokenizer
from insight.data.tokenizers.pruning import PrunedTokenizer, plan_pruning, prune_tokenizer
from insight.runtime.errors import ConfigError

# Encodings of the text that choosing by cost may take; each halves what is left of the range.
_NUM_TRIALS = 8
_NUM_CURVE_SIZES = 6
# Sizes that differ by a smaller share than this tell nothing new.
_NEAR = 0.02


@dataclass(frozen=True)
class PruningTrial:
    """One size, tried by encoding the text.

    Attributes:
        vocabulary_size: Tokens that are left.
        num_tokens: What the text then has.
        num_tokens_before: What it had with all tokens.
        num_bytes: Its length.
    """

    vocabulary_size: int
    num_tokens: int
    num_tokens_before: int
    num_bytes: int

    @property
    def loss(self) -> float:
        """How many more tokens the text has, as a share of those before."""
        return self.num_tokens / self.num_tokens_before - 1

    @property
    def bytes_per_token(self) -> float:
        """How short the text became."""
        return self.num_bytes / self.num_tokens


class PruningSearch:
    """Prunes one tokenizer for one text.

    Args:
        tokenizer: Byte-pair encoding.
        texts: What the counts are taken from and every size is tried on; read again at each trial.

    Attributes:
        before: What the whole tokenizer makes of the texts.
        plan: The order in which tokens go.
        trials: Every size that was tried, by size.

    Raises:
        DataError: There is no text.
        TokenizerError: The tokenizer cannot be pruned.
    """

    def __init__(self, tokenizer: BaseTokenizer, texts: Sequence[NamedText]) -> None:
        self._tokenizer = tokenizer
        self._texts = texts
        self.before: TokenizerQuality = measure_tokenizer(tokenizer, texts)
        self.plan = plan_pruning(tokenizer, self.before.counts)
        self.trials: dict[int, PruningTrial] = {}
        kept = self._tokenizer_without(0).tokenizer.vocabulary_size
        # Ids that no token has are gone in any case.
        self._full_size = kept

    @property
    def smallest_size(self) -> int:
        """Bytes, special tokens and whatever else must stay."""
        return self._full_size - len(self.plan.order)

    @property
    def largest_free_size(self) -> int:
        """Size at which no id of the text changes; a smaller one costs tokens."""
        return self._full_size - self.plan.num_free

    def to_size(self, vocabulary_size: int) -> PrunedTokenizer:
        """The tokenizer with this many tokens.

        Raises:
            ConfigError: It has fewer, or more must stay.
        """
        if not self.smallest_size <= vocabulary_size <= self._full_size:
            raise ConfigError(
                f"vocabulary_size={vocabulary_size}: the tokenizer has {self._full_size} tokens, of which "
                f"{self.smallest_size} must stay",
                f"use {self.smallest_size} to {self._full_size}",
            )
        pruned = self._tokenizer_without(self._full_size - vocabulary_size)
        self._try(pruned)
        return pruned

    def to_loss(self, max_loss: float) -> PrunedTokenizer:
        """The smallest tokenizer found that makes the text longer by at most ``max_loss``, as encoding shows.

        Args:
            max_loss: Share of the tokens before, e.g. 0.01 for one per cent more; 0 drops only what never
                occurs.

        Raises:
            ConfigError: ``max_loss`` is negative.
        """
        if not max_loss >= 0:
            raise ConfigError(f"max_loss={max_loss}: must not be negative", "use e.g. 0.01")
        allowed = self.before.total.num_tokens * max_loss
        good, bad = self.plan.num_free, len(self.plan.order) + 1
        # The estimate is close, so it is tried first; then the range around it is halved.
        trial = int(np.searchsorted(self.plan.extra_tokens, allowed, side="right"))
        for _ in range(_NUM_TRIALS):
            if bad - good <= 1 or max_loss == 0:
                break
            trial = trial if good < trial < bad else (good + bad) // 2
            if self._try(self._tokenizer_without(trial)).loss <= max_loss:
                good, trial = trial, min(trial + max(1, trial // 8), (trial + bad) // 2)
            else:
                bad, trial = trial, (good + trial) // 2
        return self.to_size(self._full_size - good)

    def try_curve(self) -> None:
        """Try some sizes between the smallest and the full one, evenly spaced as ratios."""
        sizes = np.geomspace(self.smallest_size, self._full_size, _NUM_CURVE_SIZES).round().astype(int)
        for size in sizes.tolist():
            if not any(abs(tried / size - 1) < _NEAR for tried in self.trials) or size == self._full_size:
                self._try(self._tokenizer_without(self._full_size - size))

    def _tokenizer_without(self, num_removed: int) -> PrunedTokenizer:
        return prune_tokenizer(self._tokenizer, self.plan.order[:num_removed])

    def _try(self, pruned: PrunedTokenizer) -> PruningTrial:
        size = pruned.tokenizer.vocabulary_size
        if size not in self.trials:
            total = self.before.total
            num_tokens = sum(
                len(pruned.tokenizer.encode_batch(batch).ids)
                for _, read in self._texts
                for batch, _ in text_batches(pruned.tokenizer, read())
            )
            self.trials[size] = PruningTrial(size, num_tokens, total.num_tokens, total.num_bytes)
        return self.trials[size]
