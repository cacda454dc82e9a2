"""Sequence-length warm-up: batches are cut into shorter rows at the beginning of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from insight.data.sampling.permutation import Int64
from insight.data.sampling.samples import MAX_SEQUENCE_LENGTH, Corpus, Rows, Samples, SamplingConfig
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

    is_outermost: ClassVar[bool] = True
    counts_batches: ClassVar[bool] = True

    start_length: int = 32
    num_batches: int = 100
    keep_tokens: bool = True
    sampling: SamplingConfig = Windows()

    def __post_init__(self) -> None:
        for name, example, most in (("start_length", 32, MAX_SEQUENCE_LENGTH), ("num_batches", 100, 10**12)):
            require_number(name, getattr(self, name), example, whole=True, at_least=1, at_most=most)
        if isinstance(self.sampling, SequenceLengthWarmup):
            problem, inner = "one warm-up cannot be inside another", type(self.sampling).__name__
            raise ConfigError(problem, "leave one out", option="sampling", value=inner)

    def check(self, names: Sequence[str], sequence_length: int) -> None:
        ratio, rest = divmod(sequence_length, self.start_length)
        if rest or ratio & (ratio - 1) or not ratio:
            halves, length = [], sequence_length
            while length % 2 == 0:
                length //= 2
                halves.append(length)
            problem = f"doubling it never gives sequence_length={sequence_length}"
            remedy = f"use {', '.join(map(str, halves[:4])) or 'an even sequence_length'}"
            raise ConfigError(problem, remedy, option="start_length", value=self.start_length)
        self.sampling.check(names, sequence_length)

    def build(self, corpora: Sequence[Corpus], sequence_length: int, seed: int) -> Samples:
        return self.sampling.build(corpora, sequence_length, seed)

    def shaped(self, rows: Rows, index: int) -> Rows:
        length = self.length_at(index, rows.inputs.shape[1])
        if length == rows.inputs.shape[1]:
            return rows

        def cut(array: Int64) -> Int64:
            return array.reshape(-1, length) if self.keep_tokens else array[:, :length]

        ids = rows.document_ids
        return Rows(cut(rows.inputs), cut(rows.targets), None if ids is None else cut(ids))

    def length_at(self, index: int, sequence_length: int) -> int:
        """Length of the rows of batch ``index`` of the run."""
        num_doublings = (sequence_length // self.start_length).bit_length() - 1
        if index >= self.num_batches:
            return sequence_length
        return self.start_length << (index * num_doublings // self.num_batches)
