"""Windows of the token stream, in shuffled order for training and in sequence for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from insight.data.sampling.permutation import Int64, permute, random_integer
from insight.data.sampling.samples import IGNORED_TARGET, Corpus, Rows, Samples, SamplingConfig
from insight.data.store import TokenStore
from insight.runtime.errors import ConfigError, DataError
from insight.runtime.numbers import require_number

_OFFSET = 1


@dataclass(frozen=True)
class WindowOrder:
    """The windows of a token stream in training order.

    Each epoch cuts the stream into ``num_windows`` windows without overlap, from an offset that differs by
    epoch, so that over the epochs a token appears at every distance from the start of its window. A window
    needs ``sequence_length + 1`` tokens: the targets are the inputs shifted by one.

    Args:
        num_tokens: Length of the stream, at least ``sequence_length + 1``.
        sequence_length: Inputs per window, at least 1.
        random_offset: Whether each epoch has its own offset; otherwise all epochs begin at the first token.
    """

    num_tokens: int
    sequence_length: int
    seed: int
    random_offset: bool = True

    def __post_init__(self) -> None:
        require_number("sequence_length", self.sequence_length, 256, whole=True, at_least=1)
        if self.num_tokens <= self.sequence_length:
            problem = f"{self.num_tokens} tokens, fewer than one sequence of {self.sequence_length} + 1"
            most = max(1, self.num_tokens - 1)
            raise ConfigError(problem, f"use sequence_length={most} or less, or more text")

    @property
    def num_windows(self) -> int:
        """Windows per epoch, equal for every offset: at most one less than would fit at offset 0."""
        if not self.random_offset:
            return (self.num_tokens - 1) // self.sequence_length
        return max(1, (self.num_tokens - self.sequence_length) // self.sequence_length)

    def offset(self, epoch: int) -> int:
        """Index of the first token of the first window of this epoch."""
        if not self.random_offset:
            return 0
        slack = self.num_tokens - 1 - self.num_windows * self.sequence_length
        return random_integer(min(self.sequence_length, slack + 1), self.seed, epoch, _OFFSET)

    def starts(self, epoch: int, positions: Int64) -> Int64:
        """First token of the windows at positions of the epoch's order, each in ``range(num_windows)``."""
        windows = permute(positions, self.num_windows, self.seed, epoch)
        return self.offset(epoch) + windows * self.sequence_length


@dataclass(frozen=True)
class Windows(SamplingConfig):
    """Windows of the whole stream without overlap, in a new order every epoch.

    Every token is used, and attention crosses the ends of documents.

    Args:
        random_offset: Begin each epoch at another token, so that over the epochs a token appears at every
            distance from the start of its window; false begins every epoch at the first token.
    """

    random_offset: bool = True

    def build(self, corpora: Sequence[Corpus], sequence_length: int, seed: int) -> Samples:
        (corpus,) = corpora
        num_tokens = corpus.store.num_tokens
        if num_tokens <= sequence_length:
            problem = f"{corpus.title}: {num_tokens} tokens, fewer than one sequence of {sequence_length} + 1"
            raise DataError(problem, f"give more text or use sequence_length={num_tokens - 1} or less")
        return WindowSamples(corpus.store, WindowOrder(num_tokens, sequence_length, seed, self.random_offset))


class WindowSamples(Samples):
    """Windows of a store; the name of a window is the position of its first token."""

    def __init__(self, store: TokenStore, windows: WindowOrder) -> None:
        self.store, self.windows = store, windows
        self.num_samples, self.num_names = windows.num_windows, windows.num_tokens

    def order(self, epoch: int, positions: Int64) -> Int64:
        return self.windows.starts(epoch, positions)

    def rows(self, names: Int64) -> Rows:
        tokens = self.store.windows(names, self.windows.sequence_length + 1)
        return Rows(tokens[:, :-1], tokens[:, 1:])


@dataclass(frozen=True)
class EvaluationWindows:
    """A split cut into windows without overlap.

    The input is the end-of-text id followed by the stored tokens, and the targets are the stored tokens. So
    the first token of every document is predicted from the end-of-text id before it, and every byte counts
    exactly once. The last window is padded with ignored targets.
    """

    store: TokenStore
    sequence_length: int

    @property
    def num_windows(self) -> int:
        """Number of windows in the split."""
        return -(-self.store.num_tokens // self.sequence_length)

    def gather(self, windows: Int64) -> tuple[Int64, Int64]:
        """Inputs and targets of windows, each int64 ``(len(windows), sequence_length)``.

        An index of ``num_windows`` or more gives a row of ignored targets.
        """
        length = self.sequence_length
        inputs = np.full((len(windows), length), self.store.end_of_text_id, dtype=np.int64)
        targets = np.full((len(windows), length), IGNORED_TARGET, dtype=np.int64)
        # One gather reads all windows that have a token before them and end inside the stream.
        whole = (windows >= 1) & ((windows + 1) * length <= self.store.num_tokens)
        tokens = self.store.windows(windows[whole] * length - 1, length + 1)
        inputs[whole], targets[whole] = tokens[:, :-1], tokens[:, 1:]
        for row in np.flatnonzero(~whole & (windows < self.num_windows)).tolist():
            start = int(windows[row]) * length
            found = self.store.tokens(start, min(start + length, self.store.num_tokens))
            targets[row, : len(found)] = found
            inputs[row, 1 : len(found)] = found[:-1]
            if start > 0:
                inputs[row, 0] = self.store.tokens(start - 1, start)[0]
        return inputs, targets
