"""Windows of token ids in memory, equal for every contender. Needs only numpy and torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Tokens = npt.NDArray[np.integer[Any]]


def load_tokens(path: Path) -> Tokens:
    """A flat array of token ids written by ``numpy.save``."""
    tokens: Tokens = np.load(path, mmap_mode="r")
    return tokens


class TrainingWindows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Windows in training order: each epoch has a new offset and order, and each token once.

    Args:
        tokens: The stream of token ids.
        sequence_length: Tokens per window.
        seed: Seed of orders and offsets.
        num_epochs: Number of epochs to cover, more than any run here reaches.
    """

    def __init__(self, tokens: Tokens, sequence_length: int, seed: int, num_epochs: int = 50) -> None:
        self.tokens = np.asarray(tokens, dtype=np.int64)
        self.sequence_length = sequence_length
        if len(tokens) < 2 * sequence_length + 1:
            raise ValueError(f"{len(tokens)} tokens are too few for windows of {sequence_length}")
        generator = np.random.default_rng(seed)
        epochs = []
        for _ in range(num_epochs):
            offset = int(generator.integers(sequence_length))
            count = (len(tokens) - 1 - offset) // sequence_length
            epochs.append(offset + sequence_length * generator.permutation(count))
        self.starts = np.concatenate(epochs)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        start = int(self.starts[index])
        window = torch.from_numpy(self.tokens[start : start + self.sequence_length + 1])
        return {"input_ids": window[:-1], "targets": window[1:]}

    def batch(self, index: int, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Batch number ``index``: input ids and targets, each ``(batch_size, sequence_length)``, int64."""
        rows = [self[index * batch_size + row] for row in range(batch_size)]
        return torch.stack([row["input_ids"] for row in rows]), torch.stack([row["targets"] for row in rows])
