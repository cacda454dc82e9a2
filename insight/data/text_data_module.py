"""The interface of Insight's own data modules, beside the methods that Lightning calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch

from insight.data.loaders import SampleCursor
from insight.data.tokenizers import BaseTokenizer


class TextDataModule(pl.LightningDataModule, ABC):
    """A data module whose text the commands can describe, try in small, and find their position in.

    Attributes:
        size_option: The option that says how much a training batch holds.
        chooses_batch_size: Whether ``size_option`` is ``auto``, and nothing has chosen a number yet.
    """

    size_option: str
    chooses_batch_size = False

    def __init__(self) -> None:
        super().__init__()
        self._cursor = SampleCursor()

    def advance(self, num_samples_global: int) -> None:
        """Count the samples of a training batch on all ranks together as consumed.

        Called at the end of ``training_step``, before any callback may save a checkpoint.
        """
        self._cursor.advance(num_samples_global)

    def start_over(self) -> None:
        """Begin at the first sample again, as if nothing had been trained."""
        self._cursor = SampleCursor()

    @property
    @abstractmethod
    def tokenizer(self) -> BaseTokenizer:
        """The tokenizer of the text that the network writes."""

    @property
    def tokenizers(self) -> tuple[BaseTokenizer, ...]:
        """All tokenizers, in the order in which ``use_tokenizer`` takes them."""
        return (self.tokenizer,)

    @property
    @abstractmethod
    def batch_shape(self) -> tuple[int, int]:
        """Rows of a training batch on one rank and tokens of a row, where rows are as long as can be."""

    @property
    @abstractmethod
    def num_training_rows(self) -> int:
        """Rows as long as can be that the text of one epoch fills, about."""

    @property
    @abstractmethod
    def tokens_per_batch(self) -> int:
        """Tokens of a training batch on one rank."""

    @abstractmethod
    def size_of(self, num_rows: int) -> int:
        """The value of ``size_option`` for batches of so many rows that are as long as can be."""

    @abstractmethod
    def use_batch_size(self, size: int) -> None:
        """Train on batches of this size instead of ``auto``; ``size_option`` says in which unit."""

    @abstractmethod
    def check_position(self, state_dict: dict[str, Any]) -> None:
        """Refuse the saved position of other data or another order, before training processes start.

        Raises:
            CheckpointError: The position is another; the message names the differences.
        """

    @abstractmethod
    def check_processes(self, state_dict: dict[str, Any], num_readers: int, accumulation: int) -> None:
        """Refuse processes that cannot share the steps of a saved position.

        Args:
            state_dict: The saved position.
            num_readers: Processes that read different text.
            accumulation: Batches for one optimizer step.

        Raises:
            CheckpointError: The remedy names numbers that work.
        """

    @abstractmethod
    def in_text_order(self, split: str, batches: Sequence[torch.Tensor]) -> torch.Tensor:
        """Values of the target tokens of a split in the order of its text ``(tokens,)``.

        Args:
            split: The split.
            batches: The values of each batch of its loader, ``(rows, targets)``.
        """
