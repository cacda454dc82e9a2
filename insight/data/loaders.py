"""Loaders: batch number i is a pure function, so a loader is that function and where it begins."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from insight.data.batches import LanguageModelBatch
from insight.data.sampling import EvaluationWindows, WindowOrder
from insight.data.store import TokenStore

_WINDOWS_AT_ONCE = 4096


class BatchLoader:
    """Gives ``len(self)`` batches, beginning at the batch that ``first_batch`` names when iteration starts.

    Not a ``DataLoader``: there is nothing to collate, each batch is one gather from memory-mapped files,
    and Lightning must put no sampler of its own into it.

    Args:
        make_batch: The batch of an index; picklable if there are workers.
        num_batches: Batches an iteration.
        first_batch: Index of the first batch, asked for each time an iteration begins.
        num_workers: Processes that make batches ahead; 0 makes them in this one.
    """

    def __init__(
        self,
        make_batch: Callable[[int], LanguageModelBatch],
        num_batches: int,
        first_batch: Callable[[], int] = int,
        num_workers: int = 0,
    ) -> None:
        self._make_batch = make_batch
        self._num_batches = num_batches
        self._first_batch = first_batch
        self._num_workers = num_workers

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[LanguageModelBatch]:
        first = self._first_batch()
        indices = range(first, first + self._num_batches)
        if self._num_workers == 0:
            yield from map(self._make_batch, indices)
            return
        yield from DataLoader(
            _Batches(self._make_batch),
            sampler=indices,
            batch_size=None,
            num_workers=self._num_workers,
        )

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the data module owns the position. Having it tells Lightning that it may resume."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to restore, see :meth:`state_dict`."""


class _Batches(Dataset[LanguageModelBatch]):
    def __init__(self, make_batch: Callable[[int], LanguageModelBatch]) -> None:
        self._make_batch = make_batch

    def __getitem__(self, index: int) -> LanguageModelBatch:
        return self._make_batch(index)


@dataclass(frozen=True)
class TrainingBatches:
    """Training batches by global index, counted over all epochs.

    Batch ``index`` of the run is batch ``index % num_batches`` of epoch ``index // num_batches``. The global
    batch is the same for any number of ranks; a rank takes every ``world_size``-th row. What is left of an
    epoch after its last whole global batch is left out (another part in every epoch).

    Args:
        store: Training tokens.
        order: Windows of the store.
        global_batch_size: Rows on all ranks together.
        rank: This process.
        world_size: Number of processes; divides ``global_batch_size``.
    """

    store: TokenStore
    order: WindowOrder
    global_batch_size: int
    rank: int
    world_size: int

    @property
    def num_batches(self) -> int:
        """Batches an epoch."""
        return self.order.num_windows // self.global_batch_size

    def __call__(self, index: int) -> LanguageModelBatch:
        """The rows of this rank in batch ``index`` of the run."""
        epoch, batch = divmod(index, self.num_batches)
        group = max(1, _WINDOWS_AT_ONCE // self.global_batch_size)
        first_batch = batch // group * group
        starts = _starts_of_batches(self.order, epoch, first_batch, group, self.global_batch_size)
        global_batch = starts[(batch - first_batch) * self.global_batch_size :][: self.global_batch_size]
        tokens = self.store.windows(
            global_batch[self.rank :: self.world_size], self.order.sequence_length + 1
        )
        return _batch(tokens[:, :-1], tokens[:, 1:])


@dataclass(frozen=True)
class EvaluationBatches:
    """Evaluation batches; a rank takes every ``world_size``-th window.

    All batches have the same shape, which a compiled network needs, and every rank has as many: rows are
    spread evenly, and the few too many (fewer than one a batch and rank) hold ignored targets only.

    Args:
        windows: The split.
        batch_size: Most rows a batch on this rank.
        rank: This process.
        world_size: Number of processes.
    """

    windows: EvaluationWindows
    batch_size: int
    rank: int
    world_size: int

    @property
    def num_batches(self) -> int:
        """Batches on every rank."""
        return -(-self._rows_of_rank // self.batch_size)

    @property
    def _rows_of_rank(self) -> int:
        return -(-self.windows.num_windows // self.world_size)

    def __call__(self, index: int) -> LanguageModelBatch:
        """Batch ``index`` of this rank."""
        rows = -(-self._rows_of_rank // self.num_batches)
        first = index * rows
        chosen = np.arange(first, first + rows) * self.world_size + self.rank
        return _batch(*self.windows.gather(chosen))


@functools.lru_cache(maxsize=2)
def _starts_of_batches(
    order: WindowOrder, epoch: int, first_batch: int, num_batches: int, batch_size: int
) -> npt.NDArray[np.int64]:
    """Starts of the windows of several batches: permuting a thousand numbers takes little longer than ten."""
    first = first_batch * batch_size
    return order.starts(epoch, np.arange(first, min(first + num_batches * batch_size, order.num_windows)))


def _batch(inputs: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]) -> LanguageModelBatch:
    return LanguageModelBatch(
        torch.from_numpy(np.ascontiguousarray(inputs)), torch.from_numpy(np.ascontiguousarray(targets))
    )
