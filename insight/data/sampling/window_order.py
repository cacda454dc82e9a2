"""Training order: every epoch cuts the stream at another offset and shuffles the windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from insight.data.sampling.permutation import permute, random_integer
from insight.runtime.errors import ConfigError

_OFFSET = 1


@dataclass(frozen=True)
class WindowOrder:
    """The windows of a token stream in the order of training.

    In each epoch the stream is cut into ``num_windows`` windows that do not overlap, beginning at an offset
    that differs by epoch, so that over the epochs a token is seen at every distance from the start of its
    window. A window needs ``sequence_length + 1`` tokens: inputs, and targets one further.

    Args:
        num_tokens: Length of the stream, at least ``sequence_length + 1``.
        sequence_length: Inputs a window, at least 1.
        seed: Chooses offsets and permutations.
        random_offset: Whether epochs begin at offsets of their own; otherwise all begin at the first token.
    """

    num_tokens: int
    sequence_length: int
    seed: int
    random_offset: bool = True

    def __post_init__(self) -> None:
        if self.sequence_length < 1:
            raise ConfigError(
                f"sequence_length={self.sequence_length}: a sequence has at least one token", "use 1 or more"
            )
        if self.num_tokens <= self.sequence_length:
            raise ConfigError(
                f"{self.num_tokens} tokens, fewer than one sequence of {self.sequence_length} + 1",
                f"use sequence_length={max(1, self.num_tokens - 1)} or less, or more text",
            )

    @property
    def num_windows(self) -> int:
        """Windows an epoch, the same for every offset: at most one less than would fit at offset 0."""
        if not self.random_offset:
            return (self.num_tokens - 1) // self.sequence_length
        return max(1, (self.num_tokens - self.sequence_length) // self.sequence_length)

    def offset(self, epoch: int) -> int:
        """Where the first window of this epoch begins."""
        if not self.random_offset:
            return 0
        slack = self.num_tokens - 1 - self.num_windows * self.sequence_length
        return random_integer(min(self.sequence_length, slack + 1), self.seed, epoch, _OFFSET)

    def starts(self, epoch: int, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """First token of the windows at these positions of the epoch's order.

        Args:
            epoch: From 0.
            positions: int64, each in ``range(num_windows)``.
        """
        windows = permute(positions, self.num_windows, self.seed, epoch)
        return self.offset(epoch) + windows * self.sequence_length
