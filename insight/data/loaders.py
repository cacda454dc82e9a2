"""Batches, the loaders that make them, and the position in the training data.

A batch is a pure function of its index, so a loader consists of that function and the first index.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch.utils.data import DataLoader, Dataset

from insight.data.sampling import EvaluationWindows, Rows, Samples
from insight.runtime.errors import CheckpointError, ConfigError


@dataclass
class LanguageModelBatch:
    """A batch of token sequences.

    Attributes:
        input_ids: int64 ``(batch, sequence)``.
        targets: int64 ``(batch, sequence)``; ``IGNORED_TARGET`` for positions excluded from the loss.
        document_ids: int64 ``(batch, sequence)`` or ``None``; attention stays inside equal ids.
        position_ids: int64 ``(batch, sequence)`` or ``None`` for 0, 1, 2, …
        num_samples: Samples by which the position in the data advances; ``None`` for one per row.
    """

    input_ids: torch.Tensor
    targets: torch.Tensor
    document_ids: torch.Tensor | None = None
    position_ids: torch.Tensor | None = None
    num_samples: int | None = None


class SampleCursor:
    """Number of samples that all processes together have trained on.

    The identity of the data is saved with it, so that it is restored only for data with the same order.

    Attributes:
        num_consumed: Number of samples so far.
    """

    def __init__(self) -> None:
        self.num_consumed = 0
        self._restored: dict[str, Any] | None = None

    def advance(self, num_samples: int) -> None:
        """Count samples as consumed.

        Raises:
            ConfigError: The number is below 1.
        """
        if num_samples < 1:
            raise ConfigError(
                "a batch has samples",
                "pass the global batch size",
                option="num_samples_global",
                value=num_samples,
            )
        self.num_consumed += num_samples

    def state_dict(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """The number and the identity of the data that it refers to, plain JSON values."""
        return {"num_samples_consumed": self.num_consumed, **_with_fingerprint(identity)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Keep a saved number until :meth:`restore` is called with the identity of the data."""
        self._restored = dict(state_dict)

    def restore(self, identity: Mapping[str, Any], batch_size: int = 1) -> None:
        """Set the position to the loaded number, if one was loaded.

        Args:
            identity: The identity of the data, see :meth:`state_dict`.
            batch_size: Samples per batch on all processes together.

        Raises:
            CheckpointError: The number refers to other data, another order or batch, or lies inside a batch.
        """
        if not self._restored:
            return
        restored, self._restored = self._restored, None
        present = _with_fingerprint(identity)
        if restored.get("fingerprint") != present["fingerprint"]:
            names = [*identity, *(name for name in restored if name not in present)]
            different = [
                name
                for name in names
                if restored.get(name) != present.get(name) and name != "num_samples_consumed"
            ]
            changes = ", ".join(
                f"{name}={present.get(name)} (saved: {restored.get(name)})" for name in different
            )
            raise CheckpointError(
                f"the checkpoint's position is one in other training data: {changes or 'unknown format'}",
                "resume with the data settings of the run (batch_size times processes times accumulation has "
                "to stay), or start from its weights with --init_from",
            )
        num_consumed = int(restored["num_samples_consumed"])
        if num_consumed % batch_size:
            raise CheckpointError(
                f"the checkpoint's position, {num_consumed} samples, is inside a batch of {batch_size}: it "
                "was saved between the batches of one optimizer step",
                "resume with the batch_size and the accumulation of the run",
            )
        self.num_consumed = num_consumed


def text_hash(text: str) -> str:
    """xxh3 hash (64 bits, hexadecimal) of a text."""
    return str(xxhash.xxh3_64_hexdigest(text.encode("utf-8")))


def _with_fingerprint(identity: Mapping[str, Any]) -> dict[str, Any]:
    parts = dict(identity)
    return {**parts, "fingerprint": text_hash(repr(parts))}


_SAMPLES_AT_ONCE = 4096


class BatchLoader:
    """Iterates over ``num_batches`` batches from the index that ``first_batch`` returns.

    This is not a ``DataLoader``: each batch is one gather from memory-mapped files without collation, and
    Lightning must not replace its sampler.

    Args:
        make_batch: Returns the batch with an index; it must be picklable if there are workers.
        num_batches: Batches per iteration.
        first_batch: Returns the index of the first batch; called at the start of each iteration.
        num_workers: Processes that make batches in advance; 0 makes them in this process.
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
            # The loader draws a seed for its workers. Drawn from torch's global generator, it would make the
            # random numbers of the training depend on the number of iterations started.
            generator=torch.Generator(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Empty: the data module owns the position. The method tells Lightning that the loader can resume."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Does nothing, see :meth:`state_dict`."""


class _Batches(Dataset[LanguageModelBatch]):
    def __init__(self, make_batch: Callable[[int], LanguageModelBatch]) -> None:
        self._make_batch = make_batch

    def __getitem__(self, index: int) -> LanguageModelBatch:
        return self._make_batch(index)


@dataclass(frozen=True, eq=False)
class TrainingBatches:
    """Training batches by global index, counted over all epochs.

    The global batch is the same for any number of ranks; a rank takes every ``world_size``-th sample. The
    rest of an epoch after its last whole optimizer step is left out (another part in every epoch), so that
    the samples of a step do not depend on how many batches it is divided into.

    Args:
        samples: The samples in training order.
        global_batch_size: Samples per batch on all ranks together.
        rank: Rank of this process.
        world_size: Number of processes; divides ``global_batch_size``.
        samples_per_step: Samples per optimizer step on all ranks; ``None`` for one batch per step.
    """

    samples: Samples
    global_batch_size: int
    rank: int
    world_size: int
    samples_per_step: int | None = None

    @property
    def num_batches(self) -> int:
        """Number of batches in one pass over the text."""
        return self._batches_in(self.samples.num_samples)

    def __call__(self, index: int) -> LanguageModelBatch:
        """The samples of this rank in batch ``index`` of the run."""
        num_positions = self.samples.num_positions
        epoch, batch = divmod(index, self._batches_in(num_positions))
        group = max(1, _SAMPLES_AT_ONCE // self.global_batch_size)
        first_batch = batch // group * group
        first = first_batch * self.global_batch_size
        names = self._names(epoch, first, min(first + group * self.global_batch_size, num_positions))
        global_batch = names[(batch - first_batch) * self.global_batch_size :][: self.global_batch_size]
        rows = self.samples.rows(global_batch[self.rank :: self.world_size])
        shaped = self.samples.shaped(rows, index)
        return _batch(shaped, None if shaped is rows else len(rows.inputs))

    def _batches_in(self, num_samples: int) -> int:
        step = self.samples_per_step or self.global_batch_size
        return num_samples // step * (step // self.global_batch_size)

    @functools.cached_property
    def _names(self) -> Callable[[int, int, int], npt.NDArray[np.int64]]:
        """Names of the samples of several batches; ordering a thousand takes little longer than ten."""

        @functools.lru_cache(maxsize=2)
        def names(epoch: int, first: int, stop: int) -> npt.NDArray[np.int64]:
            return self.samples.order(epoch, np.arange(first, stop))

        return names

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_names"}


@dataclass(frozen=True)
class EvaluationBatches:
    """Evaluation batches of at most ``batch_size`` rows; a rank takes every ``world_size``-th window.

    All batches have the same shape, which a compiled network needs, and every rank has equally many: rows are
    spread evenly, and surplus rows (fewer than one per batch and rank) hold only ignored targets.
    """

    windows: EvaluationWindows
    batch_size: int
    rank: int
    world_size: int

    @property
    def num_batches(self) -> int:
        """Number of batches on every rank."""
        return -(-self._rows_of_rank // self.batch_size)

    @property
    def _rows_of_rank(self) -> int:
        return -(-self.windows.num_windows // self.world_size)

    def __call__(self, index: int) -> LanguageModelBatch:
        """Batch ``index`` of this rank."""
        rows = -(-self._rows_of_rank // self.num_batches)
        first = index * rows
        chosen = np.arange(first, first + rows) * self.world_size + self.rank
        return _batch(Rows(*self.windows.gather(chosen)))


def _batch(rows: Rows, num_samples: int | None = None) -> LanguageModelBatch:
    ids = rows.document_ids
    return LanguageModelBatch(
        _tensor(rows.inputs),
        _tensor(rows.targets),
        None if ids is None else _tensor(ids),
        None if ids is None else _tensor(_positions(ids)),
        num_samples,
    )


def _tensor(array: npt.NDArray[np.int64]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _positions(document_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions 0, 1, 2, … within each run of equal document ids: int64 ``(rows, sequence)``."""
    begins = np.ones(document_ids.shape, dtype=np.bool_)
    np.not_equal(document_ids[:, 1:], document_ids[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=document_ids.size)
    return (np.arange(document_ids.size) - np.repeat(starts, lengths)).reshape(document_ids.shape)
