"""Sequence-length warm-up: batches are cut into shorter rows at the beginning of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from insight.data.sampling.samples import MAX_SEQUENCE_LENGTH, Corpus, Int64, Rows, Samples, SamplingConfig
from insight.data.sampling.windows import Windows
from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number


@dataclass(frozen=True)
class SequenceLengthWarmup(SamplingConfig):
    """Begins with short sequences and doubles their length until it is ``sequence_length``.

    The length is a pure function of the batch number, so a run can resume during the warm-up. Early gradients
    of short sequences vary less (Li, Zhang and He 2022, arXiv 2108.06084). Lengths double instead of growing
    evenly, because a compiled network is recompiled for every length.

    Args:
        start_length: Length of the first batches; ``sequence_length`` divided by 2, 4, 8, ….
        num_batches: Batches until the full length is reached; each length lasts equally long.
        keep_tokens: Cut each sample into rows, so that a batch keeps its number of tokens and no token is
            lost; false keeps the number of rows and drops the tokens after ``start_length``, so that early
            batches are smaller and faster, and a part of the text is not seen in that epoch.
        sampling: The sampling whose samples are cut.
    """

    start_length: int = 32
    num_batches: int = 100
    keep_tokens: bool = True
    sampling: SamplingConfig = Windows()

    def __post_init__(self) -> None:
        require_number(
            "start_length", self.start_length, 32, whole=True, at_least=1, at_most=MAX_SEQUENCE_LENGTH
        )
        require_number("num_batches", self.num_batches, 100, whole=True, at_least=1, at_most=10**12)
        if isinstance(self.sampling, SequenceLengthWarmup):
            raise ConfigError(
                "one warm-up cannot be inside another",
                "leave one out",
                option="sampling",
                value="SequenceLengthWarmup",
            )

    @property
    def is_outermost(self) -> bool:
        return True

    @property
    def counts_batches(self) -> bool:
        return True

    def check(self, names: Sequence[str], sequence_length: int) -> None:
        ratio, rest = divmod(sequence_length, self.start_length)
        if rest or ratio & (ratio - 1) or not ratio:
            halves, length = [], sequence_length
            while length % 2 == 0:
                length //= 2
                halves.append(length)
            raise ConfigError(
                f"doubling it never gives sequence_length={sequence_length}",
                f"use {', '.join(map(str, halves[:4])) or 'an even sequence_length'}",
                option="start_length",
                value=self.start_length,
            )
        self.sampling.check(names, sequence_length)

    def build(self, corpora: Sequence[Corpus], sequence_length: int, seed: int) -> Samples:
        return WarmingSamples(self.sampling.build(corpora, sequence_length, seed), self, sequence_length)

    def length_at(self, index: int, sequence_length: int) -> int:
        """Length of the rows of batch ``index`` of the run."""
        num_doublings = (sequence_length // self.start_length).bit_length() - 1
        if index >= self.num_batches:
            return sequence_length
        return self.start_length << (index * num_doublings // self.num_batches)


@dataclass(frozen=True, eq=False)
class WarmingSamples(Samples):
    """Samples that are cut into shorter rows during the warm-up."""

    samples: Samples
    warmup: SequenceLengthWarmup
    sequence_length: int

    @property
    def num_samples(self) -> int:
        return self.samples.num_samples

    @property
    def num_names(self) -> int:
        return self.samples.num_names

    @property
    def num_positions(self) -> int:
        return self.samples.num_positions

    def order(self, epoch: int, positions: Int64) -> Int64:
        return self.samples.order(epoch, positions)

    def rows(self, names: Int64) -> Rows:
        return self.samples.rows(names)

    def shaped(self, rows: Rows, index: int) -> Rows:
        length = self.warmup.length_at(index, self.sequence_length)
        if length == self.sequence_length:
            return rows
        ids = rows.document_ids
        return Rows(
            self._cut(rows.inputs, length),
            self._cut(rows.targets, length),
            None if ids is None else self._cut(ids, length),
        )

    def facts(self) -> dict[str, Any]:
        return self.samples.facts()

    def notes(self) -> list[str]:
        return self.samples.notes()

    def _cut(self, array: Int64, length: int) -> Int64:
        return array.reshape(-1, length) if self.warmup.keep_tokens else array[:, :length]
