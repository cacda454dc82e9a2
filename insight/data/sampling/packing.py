"""Packing: whole documents share a row, each treated as if it were alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from insight.data.sampling.permutation import Int64, permute
from insight.data.sampling.samples import IGNORED_TARGET, Corpus, Rows, Samples, SamplingConfig
from insight.data.store import TokenStore
from insight.data.store.reader import ragged_range
from insight.runtime.errors import ConfigError


def best_fit_decreasing(lengths: Int64, capacity: int) -> Int64:
    """The bin of every item: the longest items first, each into the fullest bin that has room for it.

    Needs at most 11/9 of the bins of the best packing (Johnson 1973). Equal items and equally full bins are
    interchangeable, so they are handled as groups: the time is that of a sort, plus some thousand steps per
    bit of ``capacity``, however many items there are.

    Args:
        lengths: int64 ``(items,)``, each in ``1..capacity``; others raise a ConfigError.
        capacity: Total length that a bin holds.

    Returns:
        int64 ``(items,)``, bin numbers from 0 without gaps.
    """
    if len(lengths) and not (lengths.min() >= 1 and lengths.max() <= capacity):
        problem = f"lengths from {lengths.min()} to {lengths.max()}: each must lie in 1..{capacity}"
        raise ConfigError(problem, "split longer items")
    by_length = np.argsort(-lengths, kind="stable")
    counts = np.bincount(lengths, minlength=capacity + 1)
    bins = np.empty(len(lengths), dtype=np.int64)
    rooms = _OpenBins()
    num_bins = done = 0
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            room = rooms.smallest(length)
            # A bin that took an item of this length remains the fullest one while it has room.
            if room is None:
                room = capacity
                chosen = np.arange(num_bins, num_bins - (-left // (room // length)))
                num_bins += len(chosen)
            else:
                chosen = rooms.take(room, -(-left // (room // length)))
            each = room // length
            num_placed = min(left, each * len(chosen))
            bins[by_length[done : done + num_placed]] = np.repeat(chosen, each)[:num_placed]
            in_last = num_placed - each * (len(chosen) - 1)
            rooms.add(room - each * length, chosen[:-1])
            rooms.add(room - in_last * length, chosen[-1:])
            done, left = done + num_placed, left - num_placed
    return bins


class _OpenBins:
    def __init__(self) -> None:
        self._bins: dict[int, list[Int64]] = {}
        self._rooms = 0  # Bit r is set when some bin has room r.

    def smallest(self, length: int) -> int | None:
        """The smallest room of a bin that fits ``length``, or ``None``."""
        fitting = self._rooms >> length
        return length + (fitting & -fitting).bit_length() - 1 if fitting else None

    def add(self, room: int, bins: Int64) -> None:
        """Add bins with this room; full bins are dropped."""
        if room and len(bins):
            self._bins.setdefault(room, []).append(bins)
            self._rooms |= 1 << room

    def take(self, room: int, most: int) -> Int64:
        """Remove and return bins with exactly this room: at least one, at most ``most``."""
        kept, taken = self._bins[room], []
        while kept and most:
            group = kept.pop()
            if len(group) > most:
                kept.append(group[most:])
                group = group[:most]
            taken.append(group)
            most -= len(group)
        if not kept:
            del self._bins[room]
            self._rooms &= ~(1 << room)
        return np.concatenate(taken)


@dataclass(frozen=True)
class Packing(SamplingConfig):
    """Whole documents in shared rows, with separate attention and positions for each document.

    Rows are filled by best-fit decreasing (Ding et al. 2024, arXiv 2404.10830): only documents longer than a
    row are cut, into whole rows and a remainder. Every token is a target exactly once per epoch; the first
    token of a document is predicted from the end-of-text token. Empty positions (the waste, which is printed
    and reported) have no targets.
    """

    def build(self, corpora: Sequence[Corpus], sequence_length: int, seed: int) -> Samples:
        (corpus,) = corpora
        plan = plan_rows(corpus.store.document_starts(), sequence_length)
        return PackedSamples(corpus.store, plan, sequence_length, seed)


class RowPlan(NamedTuple):
    """The pieces of the stream in every row.

    Attributes:
        row_offsets: int64 ``(rows + 1,)``; row ``i`` holds the pieces ``row_offsets[i]:row_offsets[i + 1]``.
        starts: int64 ``(pieces,)``, position of the first target of each piece in the stream.
        lengths: int32 ``(pieces,)``.
    """

    row_offsets: Int64
    starts: Int64
    lengths: npt.NDArray[np.int32]


def plan_rows(document_starts: Int64, sequence_length: int) -> RowPlan:
    """Pack documents into rows: cut long ones into whole rows and a remainder, and pack the rest best-fit.

    ``document_starts`` is int64 ``(documents + 1,)``: the start of each document and the end of the last one.
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


class PackedSamples(Samples):
    """Packed rows; the name of a row is its number, ``waste`` the fraction of positions without a token."""

    def __init__(self, store: TokenStore, plan: RowPlan, sequence_length: int, seed: int) -> None:
        self.store, self.plan, self.sequence_length, self.seed = store, plan, sequence_length, seed
        self.num_samples = self.num_names = len(plan.row_offsets) - 1
        self.waste = 1 - store.num_tokens / (self.num_samples * sequence_length)

    def order(self, epoch: int, positions: Int64) -> Int64:
        return permute(positions, self.num_samples, self.seed, epoch)

    def rows(self, names: Int64) -> Rows:
        shape = (len(names), self.sequence_length)
        num_pieces = self.plan.row_offsets[names + 1] - self.plan.row_offsets[names]
        pieces = ragged_range(self.plan.row_offsets[names], num_pieces)
        lengths = self.plan.lengths[pieces].astype(np.int64)
        # Each piece is read with the token before it, its first input.
        tokens = self.store.pieces(self.plan.starts[pieces] - 1, lengths + 1)
        read = ragged_range(np.cumsum(lengths + 1) - lengths - 1, lengths)
        # Positions in the concatenated rows: rows are `sequence_length` apart, pieces of a row adjacent.
        ends = np.cumsum(lengths)
        first_of_row = np.cumsum(num_pieces) - num_pieces
        before_row = (ends - lengths)[first_of_row]
        shifts = np.arange(len(names)) * self.sequence_length - before_row
        places = ragged_range(ends - lengths + np.repeat(shifts, num_pieces), lengths)

        inputs = np.full(shape, self.store.end_of_text_id, dtype=np.int64)
        targets = np.full(shape, IGNORED_TARGET, dtype=np.int64)
        # The empty positions of a row are a document of their own, after the others.
        document_ids = np.repeat(num_pieces, self.sequence_length).reshape(shape)
        inputs.ravel()[places] = tokens[read]
        targets.ravel()[places] = tokens[read + 1]
        numbers = ragged_range(np.zeros_like(num_pieces), num_pieces)
        document_ids.ravel()[places] = np.repeat(numbers, lengths)
        return Rows(inputs, targets, document_ids)

    def facts(self) -> dict[str, Any]:
        parts = len(self.plan.starts)
        return {"rows": self.num_samples, "documents_and_parts": parts, "waste": self.waste}

    def notes(self) -> list[str]:
        return [
            f"packed {len(self.plan.starts):,} documents and parts into {self.num_samples:,} rows of "
            f"{self.sequence_length} tokens; {self.waste:.2%} of the places stay empty"
        ]
