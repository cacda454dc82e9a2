"""Packing: whole documents side by side in a row, each as if it were alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from insight.data.sampling.best_fit import best_fit_decreasing
from insight.data.sampling.evaluation_windows import IGNORED
from insight.data.sampling.permutation import permute
from insight.data.sampling.samples import Corpus, Int64, Rows, Samples, SamplingConfig
from insight.data.store import TokenStore
from insight.data.store.ragged import ragged_range


@dataclass(frozen=True)
class Packing(SamplingConfig):
    """Whole documents side by side, with attention and positions of their own.

    Rows are filled by best-fit decreasing (Ding et al. 2024, arXiv 2404.10830): a document is cut only
    where it is longer than a row, into whole rows and a rest. Every token of the text is a target exactly
    once an epoch; the first of a document is predicted from the end-of-text token. What stays empty (the
    waste, which is said and reported) has targets that do not count.
    """

    def build(self, corpora: Sequence[Corpus], sequence_length: int, seed: int) -> Samples:
        (corpus,) = corpora
        plan = plan_rows(corpus.store.document_starts(), sequence_length)
        return PackedSamples(corpus.store, plan, sequence_length, seed)


class RowPlan(NamedTuple):
    """Which pieces of the stream lie in which row.

    Attributes:
        row_offsets: int64 ``(rows + 1,)``; row ``i`` has the pieces ``row_offsets[i]:row_offsets[i + 1]``.
        starts: int64 ``(pieces,)``, the first target of each piece in the stream.
        lengths: int32 ``(pieces,)``.
    """

    row_offsets: Int64
    starts: Int64
    lengths: npt.NDArray[np.int32]


def plan_rows(document_starts: Int64, sequence_length: int) -> RowPlan:
    """Pack documents into rows: long ones are cut into whole rows and a rest, rests and others best-fit.

    Args:
        document_starts: int64 ``(documents + 1,)``, where each begins in the stream and the last one ends.
        sequence_length: Tokens a row.
    """
    num_whole, rest = np.divmod(np.diff(document_starts), sequence_length)
    first_pieces = np.repeat(document_starts[:-1], num_whole)
    whole = first_pieces + ragged_range(np.zeros_like(num_whole), num_whole) * sequence_length
    shorter = np.flatnonzero(rest)
    bins = best_fit_decreasing(rest[shorter], sequence_length)
    rows = np.concatenate([np.arange(len(whole)), len(whole) + bins])
    starts = np.concatenate([whole, document_starts[1:][shorter] - rest[shorter]])
    lengths = np.concatenate([np.full(len(whole), sequence_length), rest[shorter]])
    by_row = np.argsort(rows, kind="stable")
    counts = np.bincount(rows)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])
    return RowPlan(offsets, starts[by_row], lengths[by_row].astype(np.int32))


@dataclass(frozen=True, eq=False)
class PackedSamples(Samples):
    """Packed rows by their number.

    Args:
        store: The tokens.
        plan: What lies where.
        sequence_length: Tokens a row.
        seed: Chooses the order of the rows.
    """

    store: TokenStore
    plan: RowPlan
    sequence_length: int
    seed: int

    @property
    def num_samples(self) -> int:
        return len(self.plan.row_offsets) - 1

    @property
    def num_names(self) -> int:
        return self.num_samples

    @functools.cached_property
    def waste(self) -> float:
        """Share of the positions that hold no token."""
        return 1 - self.store.num_tokens / (self.num_samples * self.sequence_length)

    def order(self, epoch: int, positions: Int64) -> Int64:
        return permute(positions, self.num_samples, self.seed, epoch)

    def rows(self, names: Int64) -> Rows:
        shape = (len(names), self.sequence_length)
        num_pieces = self.plan.row_offsets[names + 1] - self.plan.row_offsets[names]
        pieces = ragged_range(self.plan.row_offsets[names], num_pieces)
        lengths = self.plan.lengths[pieces].astype(np.int64)
        # A piece is read with the token before it: that is its first input.
        tokens = self.store.pieces(self.plan.starts[pieces] - 1, lengths + 1)
        read = ragged_range(np.cumsum(lengths + 1) - lengths - 1, lengths)
        # Where each piece begins in the rows, laid end to end: rows are `sequence_length` apart, and
        # their pieces follow one another.
        ends = np.cumsum(lengths)
        first_of_row = np.cumsum(num_pieces) - num_pieces
        before_row = (ends - lengths)[first_of_row]
        shifts = np.arange(len(names)) * self.sequence_length - before_row
        places = ragged_range(ends - lengths + np.repeat(shifts, num_pieces), lengths)

        inputs = np.full(shape, self.store.end_of_text_id, dtype=np.int64)
        targets = np.full(shape, IGNORED, dtype=np.int64)
        # What is empty is a document of its own, behind the others.
        document_ids = np.repeat(num_pieces, self.sequence_length).reshape(shape)
        inputs.ravel()[places] = tokens[read]
        targets.ravel()[places] = tokens[read + 1]
        numbers = ragged_range(np.zeros_like(num_pieces), num_pieces)
        document_ids.ravel()[places] = np.repeat(numbers, lengths)
        return Rows(inputs, targets, document_ids)

    def facts(self) -> dict[str, Any]:
        return {
            "rows": self.num_samples,
            "documents_and_parts": len(self.plan.starts),
            "waste": self.waste,
        }

    def notes(self) -> list[str]:
        return [
            f"packed {len(self.plan.starts):,} documents and parts into {self.num_samples:,} rows of "
            f"{self.sequence_length} tokens; {self.waste:.2%} of the places stay empty"
        ]
