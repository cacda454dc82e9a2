"""Batches, the loaders that make them, and the position in the training data.

A batch is a pure function of its index, so a loader consists of that function and the first index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
import xxhash
from torch.utils.data import DataLoader, Dataset

from insight.data.sampling import EvaluationWindows, Rows, Samples, SamplingConfig, Windows
from insight.data.sampling.permutation import Int64
from insight.runtime.errors import CheckpointError
from insight.runtime.numbers import require_number


@dataclass
class LanguageModelBatch:
    """A batch of token sequences, each tensor int64 ``(batch, sequence)``.

    Attributes:
        input_ids: Token ids.
        targets: Token ids; ``IGNORED_TARGET`` for positions excluded from the loss.
        document_ids: Attention stays inside equal ids; ``None`` if it has no bounds.
        position_ids: Positions in the document; ``None`` for 0, 1, 2, …
        num_samples: Samples by which the position in the data advances; ``None`` for one per row.
    """

    input_ids: torch.Tensor
    targets: torch.Tensor
    document_ids: torch.Tensor | None = None
    position_ids: torch.Tensor | None = None
    num_samples: int | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of the batch."""
        return self.input_ids.numel()


class SampleCursor:
    """The number of samples that all processes together have trained on.

    The identity of the data is saved with it, so that it is restored only for data with the same order.
    """

    def __init__(self) -> None:
        self.num_consumed = 0
        self._restored: dict[str, Any] | None = None

    def advance(self, num_samples: int) -> None:
        """Count samples as consumed; a number below 1 raises a ConfigError."""
        require_number("num_samples_global", num_samples, "the global batch size", whole=True, at_least=1)
        self.num_consumed += num_samples

    def state_dict(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """The number and the identity of the data that it refers to, plain JSON values."""
        return {"num_samples_consumed": self.num_consumed, **_with_fingerprint(identity)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Keep a saved number until :meth:`restore` is called with the identity of the data."""
        self._restored = dict(state_dict)

    def restore(self, identity: Mapping[str, Any], batch_size: int = 1) -> None:
        """Set the position to the loaded number, if one was loaded.

        ``batch_size`` is the number of samples per batch on all processes together.

        Raises:
            CheckpointError: The number refers to other data, another order or batch, or lies inside a batch.
        """
        if not self._restored:
            return
        restored, self._restored = self._restored, None
        present = _with_fingerprint(identity)
        if restored.get("fingerprint") != present["fingerprint"]:
            changes = [
                f"{name}={present.get(name)} (saved: {restored.get(name)})"
                for name in {**identity, **restored}
                if restored.get(name) != present.get(name)
                and name not in ("num_samples_consumed", "fingerprint")
            ]
            raise CheckpointError(
                "the checkpoint's position is one in other training data: "
                f"{', '.join(changes) or 'unknown format'}",
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
    return {**identity, "fingerprint": text_hash(repr(dict(identity)))}


MAX_LOADER_WORKERS = 1024
_SAMPLES_AT_ONCE = 4096


BatchType = TypeVar("BatchType")


class BatchLoader(Generic[BatchType]):
    """Iterates over ``num_batches`` batches from the index that ``first_batch`` returns at that moment.

    This is not a ``DataLoader``: each batch is one gather from memory-mapped files without collation, and
    Lightning must not replace its sampler. ``make_batch`` returns the batch with an index, and is picklable
    if there are ``num_workers`` processes that make batches in advance.
    """

    def __init__(
        self,
        make_batch: Callable[[int], BatchType],
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

    def __iter__(self) -> Iterator[BatchType]:
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


@dataclass
class _Batches(Dataset[BatchType]):
    make_batch: Callable[[int], BatchType]

    def __getitem__(self, index: int) -> BatchType:
        return self.make_batch(index)


@dataclass(eq=False)
class TrainingBatches:
    """Training batches by global index, counted over all epochs.

    The global batch is the same for any number of ranks; a rank takes every ``world_size``-th sample. The
    rest of an epoch after its last whole optimizer step is left out (another part in every epoch), so that
    the samples of a step do not depend on how many batches it is divided into.

    Args:
        global_batch_size: Samples per batch on all ranks together.
        samples_per_step: Samples per optimizer step on all ranks; ``None`` for one batch per step.
        sampling: The sampling of the samples, which may reshape those of a batch.
    """

    samples: Samples
    global_batch_size: int
    rank: int
    world_size: int
    samples_per_step: int | None = None
    sampling: SamplingConfig = Windows()
    _newest: tuple[object, Int64] = field(default=(None, np.empty(0, np.int64)), init=False, repr=False)

    @property
    def num_batches(self) -> int:
        """Number of batches in one pass over the text."""
        return self._batches_in(self.samples.num_samples)

    def __call__(self, index: int) -> LanguageModelBatch:
        """The samples of this rank in batch ``index`` of the run."""
        size, num_positions = self.global_batch_size, self.samples.num_positions
        epoch, batch = divmod(index, self._batches_in(num_positions))
        group = max(1, _SAMPLES_AT_ONCE // size)
        place = batch % group
        first = (batch - place) * size
        newest = self._newest
        if newest[0] != (epoch, first):
            # Many samples are named together, since a thousand take little longer than ten.
            positions = np.arange(first, min(first + group * size, num_positions))
            newest = self._newest = ((epoch, first), self.samples.order(epoch, positions))
        global_batch = newest[1][place * size :][:size]
        rows = self.samples.rows(global_batch[self.rank :: self.world_size])
        shaped = self.sampling.shaped(rows, index)
        return _batch(shaped, None if shaped is rows else len(rows.inputs))

    def _batches_in(self, num_samples: int) -> int:
        step = self.samples_per_step or self.global_batch_size
        return num_samples // step * (step // self.global_batch_size)


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
    batch = LanguageModelBatch(_tensor(rows.inputs), _tensor(rows.targets), num_samples=num_samples)
    if rows.document_ids is not None:
        batch.document_ids = _tensor(rows.document_ids)
        batch.position_ids = _tensor(_positions(rows.document_ids))
    return batch


def _tensor(array: Int64) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _positions(document_ids: Int64) -> Int64:
    """Positions 0, 1, 2, … within each run of equal document ids: int64 ``(rows, sequence)``."""
    begins = np.ones(document_ids.shape, dtype=np.bool_)
    np.not_equal(document_ids[:, 1:], document_ids[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=document_ids.size)
    return (np.arange(document_ids.size) - np.repeat(starts, lengths)).reshape(document_ids.shape)
