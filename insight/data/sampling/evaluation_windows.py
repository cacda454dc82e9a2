"""Evaluation windows: every token of a split is a target exactly once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from insight.data.store import TokenStore

IGNORED = -100
"""``IGNORED_TARGET`` of ``batches.py``, which imports torch."""


@dataclass(frozen=True)
class EvaluationWindows:
    """A split cut into windows that do not overlap.

    Input is the end-of-text id followed by the stored tokens, targets are the stored tokens, so the first
    token of every document is predicted from the end-of-text id before it and no byte is left out or
    counted twice. The last window is filled up with ignored targets.

    Args:
        store: The split.
        sequence_length: Tokens a window.
    """

    store: TokenStore
    sequence_length: int

    @property
    def num_windows(self) -> int:
        """Windows in the split."""
        return -(-self.store.num_tokens // self.sequence_length)

    def gather(self, windows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Inputs and targets of windows, each int64 ``(len(windows), sequence_length)``.

        Args:
            windows: Indices; one at or beyond ``num_windows`` gives a row of ignored targets.
        """
        length = self.sequence_length
        inputs = np.full((len(windows), length), self.store.end_of_text_id, dtype=np.int64)
        targets = np.full((len(windows), length), IGNORED, dtype=np.int64)
        # Windows with a token before them and all their targets inside the stream are one gather.
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
