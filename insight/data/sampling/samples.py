"""What every way of sampling offers: training samples by epoch and position, as rows of token ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from insight.data.store import TokenStore
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError

Int64 = npt.NDArray[np.int64]


class Corpus(NamedTuple):
    """Text to train on.

    Attributes:
        name: By which ``train_files`` calls it; ``""`` where it has no names.
        title: What messages call it.
        store: Its tokens.
    """

    name: str
    title: str
    store: TokenStore


class Rows(NamedTuple):
    """Samples side by side.

    Attributes:
        inputs: int64 ``(rows, sequence)``.
        targets: int64 ``(rows, sequence)``; -100 where nothing counts.
        document_ids: int64 ``(rows, sequence)``, each document of a row in one piece, or ``None`` where a
            row is one stretch of the stream.
    """

    inputs: Int64
    targets: Int64
    document_ids: Int64 | None = None


class Samples(ABC):
    """Training samples in an order that is a pure function of seed, epoch and position.

    A sample has a name, which is a number: :meth:`order` says which names stand where, :meth:`rows` reads
    them. So ranks, workers and a resumed run need nothing but positions.
    """

    @property
    @abstractmethod
    def num_samples(self) -> int:
        """Samples in one pass over the text."""

    @property
    @abstractmethod
    def num_names(self) -> int:
        """Every name is below it."""

    @property
    def num_positions(self) -> int:
        """Positions that an epoch's order has."""
        return self.num_samples

    @abstractmethod
    def order(self, epoch: int, positions: Int64) -> Int64:
        """Names of the samples at these positions of the epoch's order.

        Args:
            epoch: From 0.
            positions: int64, each in ``range(num_positions)``.
        """

    @abstractmethod
    def rows(self, names: Int64) -> Rows:
        """The samples of these names, one a row."""

    def shaped(self, rows: Rows, index: int) -> Rows:
        """The rows as batch ``index`` of the run has them."""
        return rows

    def facts(self) -> dict[str, Any]:
        """What is worth knowing about the samples, plain JSON values for reports."""
        return {}

    def notes(self) -> list[str]:
        """The same in a line or none, for whoever starts the run."""
        return []


@dataclass(frozen=True)
class SamplingConfig(Component):
    """How the token stream becomes training samples."""

    @property
    def is_outermost(self) -> bool:
        """Whether it is about all corpora or whole batches, so that it cannot be that of one corpus."""
        return False

    @property
    def counts_batches(self) -> bool:
        """Whether samples look different by the number of their batch, so that the batch size must stay."""
        return False

    def check(self, names: Sequence[str], sequence_length: int) -> None:
        """Refuse what cannot work, before any text is read.

        Args:
            names: Of the corpora to train on.
            sequence_length: Tokens a sample.

        Raises:
            ConfigError: The corpora or the length do not fit.
        """
        if len(names) > 1:
            raise ConfigError(
                f"train_files names {len(names)} corpora ({', '.join(names)}), and "
                f"sampling={type(self).__name__} takes one",
                "use sampling=Mixture with their weights, or list the files without names",
            )

    @abstractmethod
    def build(self, corpora: Sequence[Corpus], sequence_length: int, seed: int) -> Samples:
        """The samples.

        Args:
            corpora: Text to train on; their names have been checked.
            sequence_length: Tokens a sample.
            seed: Chooses the order.

        Raises:
            DataError: There is too little text.
        """
