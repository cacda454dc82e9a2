"""Index arithmetic for pieces of different lengths."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def ragged_range(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """``starts[0], starts[0] + 1, …`` of ``lengths[0]`` numbers, then those of the next piece, and so on.

    Args:
        starts: int64 ``(pieces,)``.
        lengths: int64 ``(pieces,)``, none negative.

    Returns:
        int64 ``(lengths.sum(),)``.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - ends + lengths, lengths)
