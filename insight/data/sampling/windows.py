"""Windows of the stream: documents follow one another, and a window may hold the end of one and a next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from insight.data.sampling.samples import Corpus, Int64, Rows, Samples, SamplingConfig
from insight.data.sampling.window_order import WindowOrder
from insight.data.store import TokenStore
from insight.runtime.errors import DataError


@dataclass(frozen=True)
class Windows(SamplingConfig):
    """Windows of the whole stream that do not overlap, in another order every epoch.

    Nothing is wasted, and attention sees across the ends of documents.

    Args:
        random_offset: Begin each epoch at another token, so that over the epochs a token is seen at every
            distance from the start of its window; false begins every epoch at the first token.
    """

    random_offset: bool = True

    def build(self, corpora: Sequence[Corpus], sequence_length: int, seed: int) -> Samples:
        (corpus,) = corpora
        num_tokens = corpus.store.num_tokens
        if num_tokens <= sequence_length:
            raise DataError(
                f"{corpus.title}: {num_tokens} tokens, fewer than one sequence of {sequence_length} + 1",
                f"give more text or use sequence_length={num_tokens - 1} or less",
            )
        return WindowSamples(corpus.store, WindowOrder(num_tokens, sequence_length, seed, self.random_offset))


@dataclass(frozen=True, eq=False)
class WindowSamples(Samples):
    """Windows by the token that they begin with.

    Args:
        store: The tokens.
        windows: Which windows, in which order.
    """

    store: TokenStore
    windows: WindowOrder

    @property
    def num_samples(self) -> int:
        return self.windows.num_windows

    @property
    def num_names(self) -> int:
        return self.windows.num_tokens

    def order(self, epoch: int, positions: Int64) -> Int64:
        return self.windows.starts(epoch, positions)

    def rows(self, names: Int64) -> Rows:
        tokens = self.store.windows(names, self.windows.sequence_length + 1)
        return Rows(tokens[:, :-1], tokens[:, 1:])
