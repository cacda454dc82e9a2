"""A model whose scores are a function of all tokens before, so that a search can be enumerated."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

END = 0


class TableModel:
    """Log-probabilities of the next token as a function of a seed and all tokens before."""

    def __init__(self, seeds: Sequence[int], vocabulary_size: int) -> None:
        self.rows: list[tuple[int, tuple[int, ...]]] = [(seed, ()) for seed in seeds]
        self.vocabulary_size = vocabulary_size
        self.num_sentences = len(seeds)

    def table(self, seed: int, history: tuple[int, ...]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(hash((seed, *history)) % 2**31)
        scores = torch.randn(self.vocabulary_size, generator=generator, dtype=torch.float64)
        return (1.5 * scores).log_softmax(-1)

    def first_scores(self) -> torch.Tensor:
        return torch.stack([self.table(*row) for row in self.rows])

    def next_scores(self, token_ids: torch.Tensor) -> torch.Tensor:
        self.rows = [
            (seed, (*past, new)) for (seed, past), new in zip(self.rows, token_ids.tolist(), strict=True)
        ]
        return self.first_scores()

    def continue_beams(self, beams: torch.Tensor, sentences: torch.Tensor | None) -> None:
        width = len(self.rows) // (len(beams) if sentences is None else self.num_sentences)
        kept = range(len(beams)) if sentences is None else sentences.tolist()
        self.rows = [
            self.rows[sentence * width + beam]
            for sentence, row in zip(kept, beams.tolist(), strict=True)
            for beam in row
        ]
        self.num_sentences = len(beams)

    def coverage(self) -> torch.Tensor:
        return torch.tensor([self.read(*row) for row in self.rows], dtype=torch.float64)

    def read(self, seed: int, past: tuple[int, ...]) -> float:
        """A stand-in for attention: each row has read a part of its source that depends on its tokens."""
        return math.log(1 / (1 + (seed + sum(past)) % 3))
