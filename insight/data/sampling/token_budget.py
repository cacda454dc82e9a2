"""Token-budget batches: samples of similar length together, limited by the number of padded tokens."""

from __future__ import annotations

import numpy as np

from insight.data.sampling.permutation import Int64, permute
from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number

_POOLS, _BATCHES = range(2)


class TokenBudgetOrder:
    """Batches with about the same number of tokens, for samples of any lengths, such as pairs of sentences.

    Every epoch shuffles the samples and cuts them into pools. Each pool is sorted by length (in bands of the
    first side, and by the other sides inside a band) and cut into batches whose rows, padded to the longest,
    hold at most ``max_tokens``; then all batches are shuffled. So samples of similar length share a batch,
    but with different partners each epoch. Batches are global: rank r of w takes every w-th sample from the
    r-th on, so all ranks have equally many batches with rows of similar length. Every sample appears once per
    epoch, so a position is a number of samples.

    Args:
        lengths: int64 ``(samples,)``, or ``(samples, sides)`` if each sample has several padded parts, such
            as source and target.
        max_tokens: Most padded tokens in a batch, on all sides and all ranks together.
        seed: Chooses the order.
        pool_size: Samples that are sorted together. A larger pool means less padding and less random batches.

    Raises:
        ConfigError: There are no samples, a length is below 1, or one sample exceeds ``max_tokens``.
    """

    def __init__(self, lengths: Int64, max_tokens: int, seed: int, pool_size: int = 1 << 14) -> None:
        lengths = np.asarray(lengths)
        if lengths.ndim not in (1, 2) or not lengths.size or lengths.dtype.kind not in "iu":
            found = f"lengths is {lengths.dtype} of shape {lengths.shape}"
            needed = "must be whole numbers, (samples,) or (samples, sides)"
            raise ConfigError(f"{found}: {needed}", "give every sample a length")
        self.lengths = lengths.reshape(len(lengths), -1).astype(np.int64)
        require_number("pool_size", pool_size, 16384, whole=True, at_least=1)
        if self.lengths.min() < 1:
            shortest = int(self.lengths.min(axis=1).argmin())
            raise ConfigError(f"lengths[{shortest}]: a sample has no token", "leave it out")
        totals = self.lengths.sum(axis=1)
        if totals.max() > max_tokens:
            longest = int(totals.max())
            problem = f"sample {int(totals.argmax())} alone has {longest}"
            remedy = f"use {longest} or more, or leave long samples out"
            raise ConfigError(problem, remedy, option="max_tokens", value=max_tokens)
        self.max_tokens, self.seed, self.pool_size = max_tokens, seed, pool_size
        self.num_samples = len(self.lengths)
        batches_a_pool = int(totals.sum()) * min(1.0, pool_size / self.num_samples) / max_tokens
        self._ranks = np.empty(self.num_samples, dtype=np.int64)
        self._ranks[_by_similarity(self.lengths, round(2 * batches_a_pool**0.5))] = np.arange(
            self.num_samples
        )
        self._newest: tuple[int, list[Int64]] = (-1, [])
        self._ends: list[int] = []

    def epoch(self, epoch: int) -> list[Int64]:
        """The global batches of an epoch, each as an array of sample numbers."""
        if self._newest[0] != epoch:
            # The two permutations of an epoch must differ even if there are as many batches as samples.
            shuffled = permute(np.arange(self.num_samples), self.num_samples, self.seed, 2 * epoch + _POOLS)
            batches = []
            for start in range(0, self.num_samples, self.pool_size):
                pool = shuffled[start : start + self.pool_size]
                batches += self._cut(pool[np.argsort(-self._ranks[pool], kind="stable")])
            order = permute(np.arange(len(batches)), len(batches), self.seed, 2 * epoch + _BATCHES)
            self._newest = (epoch, [batches[number] for number in order.tolist()])
        return self._newest[1]

    def padding(self, epoch: int) -> float:
        """Fraction of an epoch's padded tokens that are padding."""
        padded = sum(len(batch) * int(self.lengths[batch].max(axis=0).sum()) for batch in self.epoch(epoch))
        return 1 - int(self.lengths.sum()) / padded

    def batch(self, index: int) -> Int64:
        """The samples of the global batch ``index``, counted over all epochs."""
        epoch = 0
        while index >= self._end_of(epoch):
            epoch += 1
        return self.epoch(epoch)[index - self._end_of(epoch - 1)]

    def index_after(self, num_samples: int) -> int:
        """The index of the batch that begins after this many samples of the run.

        Raises:
            ConfigError: The position lies inside a batch.
        """
        epoch, before = divmod(num_samples, self.num_samples)
        ends = np.cumsum([0, *map(len, self.epoch(epoch))])
        inside = int(np.searchsorted(ends, before))
        if ends[inside] != before:
            remedy = "resume with the lengths, budget, pool size and seed of the run"
            option, value = "num_samples_consumed", num_samples
            raise ConfigError("lies inside a batch", remedy, option=option, value=value)
        return self._end_of(epoch - 1) + inside

    def by_length(self) -> list[Int64]:
        """All samples in batches within the budget, from the longest to the shortest, for measuring."""
        return self._cut(np.argsort(-self._ranks))

    def _end_of(self, epoch: int) -> int:
        """Index after the last batch of an epoch; 0 before the first epoch."""
        while len(self._ends) <= epoch:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self.epoch(len(self._ends))))
        return self._ends[epoch] if epoch >= 0 else 0

    def _cut(self, pool: Int64) -> list[Int64]:
        """Cut a pool, sorted from longest to shortest, into batches as large as the budget allows."""
        lengths = self.lengths[pool]
        batches, start = [], 0
        while start < len(pool):
            # Every row is padded at least to the length of the first one.
            ahead = lengths[start : start + self.max_tokens // int(lengths[start].sum())]
            longest = np.maximum.accumulate(ahead, axis=0).sum(axis=1)
            costs = np.arange(1, len(longest) + 1) * longest
            count = int(np.searchsorted(costs, self.max_tokens, side="right"))
            batches.append(pool[start : start + count])
            start += count
        return batches


def _by_similarity(lengths: Int64, num_bands: int) -> Int64:
    """Order samples ``(samples, sides)`` so that neighbours need little padding on every side.

    Bands of like first sides, with equally many tokens in each, are sorted by the other sides, upwards and
    downwards in turn. Sorted by the total length alone, pairs of Bible verses need twice the padding (13.7%
    instead of 5.8% in batches of 8,000 tokens).
    """
    first, others = lengths[:, 0], lengths[:, 1:].sum(axis=1)
    order = np.lexsort((others, first))
    tokens_before = np.cumsum(lengths[order].sum(axis=1)) - 1
    band = np.empty(len(lengths), dtype=np.int64)
    band[order] = tokens_before * max(1, num_bands) // (tokens_before[-1] + 1)
    return np.lexsort((first, np.where(band % 2, -others, others), band))
