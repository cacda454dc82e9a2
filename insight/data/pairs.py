"""Pairs of sentences as token ids: both sides of a split, and batches of a budget of padded tokens."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from insight.data.sampling import IGNORED_TARGET, TokenBudgetOrder
from insight.data.store import TokenStore


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
        text: The bytes of the whole sentences, source and target in turn; ``None`` for training pairs.
    """

    def __init__(self, source: TokenStore, target: TokenStore, text: TokenStore | None = None) -> None:
        self.source, self.target, self.text = source, target, text

    @functools.cached_property
    def starts(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where each sentence of the source and of the target begins, and where the last one ends."""
        return self.source.document_starts(), self.target.document_starts()

    @functools.cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each side with the end-of-text id: int64 ``(pairs, 2)``."""
        return np.stack([np.diff(starts) for starts in self.starts], axis=1)

    def batch(self, pairs: npt.NDArray[np.int64], rank: int = 0, world_size: int = 1) -> TranslationBatch:
        """The pairs of one rank in a global batch, padded to the longest of them.

        A rank that no pair is left for gets one whose targets do not count, since all take part in a step.

        Args:
            pairs: Numbers of the pairs of all ranks together.
            rank: The data-parallel rank.
            world_size: Number of data-parallel ranks.
        """
        own = pairs[rank::world_size]
        rows = own if len(own) else pairs[:1]
        source_ids, source_mask = _padded(self.source, self.starts[0], rows)
        targets, target_mask = _padded(self.target, self.starts[1], rows)
        begin = np.full((len(rows), 1), self.target.end_of_text_id, dtype=np.int64)
        target_ids = np.concatenate([begin, targets[:, :-1]], axis=1)
        targets = np.where(target_mask if len(own) else False, targets, IGNORED_TARGET)
        return TranslationBatch(
            torch.from_numpy(source_ids),
            None if source_mask.all() else torch.from_numpy(source_mask),
            torch.from_numpy(target_ids),
            torch.from_numpy(targets),
            len(pairs),
            int(source_mask.sum() + target_mask.sum()) if len(own) else 0,
        )


def _padded(
    store: TokenStore, starts: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The documents of ``rows`` with their end-of-text ids, and where they stand: ``(rows, longest)``."""
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
        order: The order of the pairs, cut into global batches; a rank takes every ``world_size``-th pair.
        rank: The data-parallel rank of this process.
        world_size: Number of data-parallel ranks.
    """

    def __init__(self, stores: PairStores, order: TokenBudgetOrder, rank: int, world_size: int) -> None:
        self.stores, self._order = stores, order
        self._rank, self._world_size = rank, world_size

    @property
    def num_batches(self) -> int:
        """Batches of the first epoch; the other epochs have about as many."""
        return len(self._order.epoch(0))

    def __call__(self, index: int) -> TranslationBatch:
        """The samples of this rank in batch ``index`` of the run."""
        return self.stores.batch(self._order.batch(index), self._rank, self._world_size)


class EvaluationPairs:
    """All pairs of a split in batches of like length, each pair once; every rank has as many batches.

    Args:
        stores: The pairs of the split.
        max_tokens: Most padded tokens of a batch on one rank, on average over the ranks.
        rank: The data-parallel rank of this process.
        world_size: Number of data-parallel ranks.
    """

    def __init__(self, stores: PairStores, max_tokens: int, rank: int, world_size: int) -> None:
        self.stores, self._rank, self._world_size = stores, rank, world_size
        self._batches = TokenBudgetOrder(stores.lengths, max_tokens * world_size, seed=0).by_length()

    @property
    def num_batches(self) -> int:
        """Batches on every rank."""
        return len(self._batches)

    def pairs(self, index: int) -> npt.NDArray[np.int64]:
        """Numbers of the pairs in a batch of this rank."""
        return self._batches[index][self._rank :: self._world_size]

    def __call__(self, index: int) -> TranslationBatch:
        """Batch ``index`` of this rank."""
        return self.stores.batch(self._batches[index], self._rank, self._world_size)
