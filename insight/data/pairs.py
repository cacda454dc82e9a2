"""Pairs of sentences as token ids: both sides of a split, and batches of a budget of padded tokens."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from insight.data.sampling import IGNORED_TARGET, TokenBudgetOrder
from insight.data.store import TokenStore
from insight.runtime.errors import ConfigError


@dataclass
class TranslationBatch:
    """A batch of pairs of sentences, padded on the right.

    Attributes:
        source_ids: int64 ``(batch, source)``; every sentence ends with the end-of-text id.
        source_mask: bool ``(batch, source)``, False where padding stands; ``None`` without padding.
        target_ids: int64 ``(batch, target)``: the end-of-text id, then the target, as the decoder reads it.
        targets: int64 ``(batch, target)``: the target, then the end-of-text id; ``IGNORED_TARGET`` at pads.
        num_samples_global: Samples of the batch on all ranks together, by which the data's position moves on.
        num_tokens: Tokens of both sides on this rank, without padding.
    """

    source_ids: torch.Tensor
    source_mask: torch.Tensor | None
    target_ids: torch.Tensor
    targets: torch.Tensor
    num_samples_global: int
    num_tokens: int


class PairStores:
    """The token ids of the pairs of a split, source and target side by side.

    Args:
        source: One document for each source sentence.
        target: One document for each target sentence.
    """

    def __init__(self, source: TokenStore, target: TokenStore) -> None:
        self.source, self.target = source, target

    @functools.cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each side with the end-of-text id: int64 ``(pairs, 2)``."""
        return np.stack([np.diff(store.document_starts()) for store in (self.source, self.target)], axis=1)

    def batch(self, pairs: npt.NDArray[np.int64], num_samples_global: int) -> TranslationBatch:
        """Pairs by their numbers, padded to the longest; -1 stands for a pair that does not count."""
        counted = pairs >= 0
        rows = np.where(counted, pairs, 0)
        source_ids, source_mask = _padded(self.source, rows)
        targets, target_mask = _padded(self.target, rows)
        begin = np.full((len(rows), 1), self.target.end_of_text_id, dtype=np.int64)
        target_ids = np.concatenate([begin, targets[:, :-1]], axis=1)
        targets = np.where(target_mask & counted[:, None], targets, IGNORED_TARGET)
        return TranslationBatch(
            torch.from_numpy(source_ids),
            None if source_mask.all() else torch.from_numpy(source_mask),
            torch.from_numpy(np.ascontiguousarray(target_ids)),
            torch.from_numpy(targets),
            num_samples_global,
            int(source_mask[counted].sum() + target_mask[counted].sum()),
        )


def _padded(
    store: TokenStore, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The documents of ``rows`` with their end-of-text ids, and where they stand: ``(rows, longest)``."""
    starts = store.document_starts()
    begins = starts[rows]
    lengths = starts[rows + 1] - begins
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, store.end_of_text_id, dtype=np.int64)
    ids[mask] = store.pieces(begins, lengths)
    return ids, mask


class BudgetBatches:
    """Training batches of a token budget by index, counted over all epochs.

    Args:
        stores: The training pairs.
        order: The order of the pairs, cut into batches.
        rank: The data-parallel rank of this process.
        world_size: Number of data-parallel ranks.
    """

    def __init__(self, stores: PairStores, order: TokenBudgetOrder, rank: int, world_size: int) -> None:
        self._stores, self._order = stores, order
        self._rank, self._world_size = rank, world_size
        self._ends: list[int] = []

    @property
    def num_batches(self) -> int:
        """Batches of the first epoch; the other epochs have about as many."""
        return len(self._order.epoch(0))

    def index_of(self, num_samples: int) -> int:
        """The index of the batch that begins behind ``num_samples`` samples.

        Raises:
            ConfigError: The position lies inside a batch.
        """
        epoch, before = divmod(num_samples, self._order.num_samples)
        ends = np.cumsum([len(batch) for batch in self._order.epoch(epoch)])
        inside = int(np.searchsorted(ends, before, side="right")) if before else 0
        if before and int(ends[inside - 1]) != before:
            raise ConfigError(
                "lies inside a batch",
                "resume with the lengths, budget, pool size and seed of the run",
                option="num_samples_consumed",
                value=num_samples,
            )
        return (self._end_of(epoch - 1) if epoch else 0) + inside

    def __call__(self, index: int) -> TranslationBatch:
        """The samples of this rank in batch ``index`` of the run."""
        epoch = 0
        while index >= self._end_of(epoch):
            epoch += 1
        first = self._end_of(epoch - 1) if epoch else 0
        batch = self._order.epoch(epoch)[index - first]
        own = batch[self._rank :: self._world_size]
        return self._stores.batch(own if len(own) else np.array([-1]), len(batch))

    def _end_of(self, epoch: int) -> int:
        """Index behind the last batch of an epoch."""
        while len(self._ends) <= epoch:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self._order.epoch(len(self._ends))))
        return self._ends[epoch]


class EvaluationPairs:
    """All pairs of a split in batches of like length, each pair once; every rank has as many batches.

    Args:
        stores: The pairs of the split.
        max_tokens: Most padded tokens of a batch on one rank.
        rank: The data-parallel rank of this process.
        world_size: Number of data-parallel ranks.
    """

    def __init__(self, stores: PairStores, max_tokens: int, rank: int, world_size: int) -> None:
        self.stores = stores
        totals = stores.lengths.sum(axis=1)
        order = np.argsort(-totals, kind="stable")
        own = [order[number::world_size] for number in range(world_size)]
        # Rank 0 has the longest pairs, so its cuts fit the others.
        self._batches: list[npt.NDArray[np.int64]] = []
        start = 0
        while start < len(own[0]):
            count = max(1, max_tokens // int(stores.lengths[own[0][start:]].max(axis=0).sum()))
            self._batches.append(own[rank][start : start + count])
            start += count

    @property
    def num_batches(self) -> int:
        """Batches on every rank."""
        return len(self._batches)

    def pairs(self, index: int) -> npt.NDArray[np.int64]:
        """Numbers of the pairs in a batch."""
        return self._batches[index]

    def __call__(self, index: int) -> TranslationBatch:
        """A batch; one that is empty on this rank holds a pair that does not count."""
        pairs = self._batches[index]
        return self.stores.batch(pairs if len(pairs) else np.array([-1]), len(pairs))
