"""The interface of all sampling methods: training samples by epoch and position, as rows of token ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from insight.data.sampling.permutation import Int64
from insight.data.store import TokenStore
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError

MAX_SEQUENCE_LENGTH = 1 << 24
"""Upper limit of the sequence length; a longer row would not fit into memory."""
IGNORED_TARGET = -100
"""Target value of positions excluded from the loss (the default of torch's cross-entropy)."""


class Corpus(NamedTuple):
    """Text to train on: ``name`` in ``train_files`` (``""`` if it has none) and ``title`` in messages."""

    name: str
    title: str
    store: TokenStore


class Rows(NamedTuple):
    """Samples, one per row, each array int64 ``(rows, sequence)``.

    Attributes:
        inputs: Token ids.
        targets: Token ids; ``IGNORED_TARGET`` for positions excluded from the loss.
        document_ids: Equal numbers for the contiguous tokens of a document. ``None`` if each row is one
            stretch of the stream.
    """

    inputs: Int64
    targets: Int64
    document_ids: Int64 | None = None


class Samples(ABC):
    """Training samples in an order that is a pure function of seed, epoch and position.

    Each sample has a number as its name: :meth:`order` gives the names at positions of an epoch, and
    :meth:`rows` reads the samples with these names. So ranks, workers and a resumed run need only positions.

    Attributes:
        num_samples: Number of samples in one pass over the text.
        num_names: Upper bound (excluded) of the names.
    """

    num_samples: int
    num_names: int

    @property
    def num_positions(self) -> int:
        """Number of positions in the order of an epoch."""
        return self.num_samples

    @abstractmethod
    def order(self, epoch: int, positions: Int64) -> Int64:
        """Names of the samples at these positions of the epoch's order, each in ``range(num_positions)``."""

    @abstractmethod
    def rows(self, names: Int64) -> Rows:
        """The samples with these names, one per row."""

    def facts(self) -> dict[str, Any]:
        """Statistics of the samples for reports, plain JSON values."""
        return {}

    def notes(self) -> list[str]:
        """Lines about the samples that are printed at the start of the run."""
        return []


def require_corpus_names(option: str, names: Iterable[object]) -> None:
    """Refuse corpus names that are empty, or that YAML has read as a number or a truth value."""
    for name in names:
        if not isinstance(name, str):
            problem = "the name of a corpus is not text: YAML reads no, on, 007 or 3.10 as something else"
            remedy = "put the name in quotes, e.g. 'no': FILES"
            raise ConfigError(problem, remedy, option=option, value=f"{{{name}: ...}}")
        if not name.strip():
            problem = "the name of a corpus is empty"
            raise ConfigError(problem, "give every corpus a name", option=option, value="{'': ...}")


@dataclass(frozen=True)
class SamplingConfig(Component):
    """How the token stream becomes training samples.

    Attributes:
        is_outermost: Whether it needs all corpora or whole batches, so that it cannot be used for one corpus.
        counts_batches: Whether samples depend on the number of their batch, so that its size must not change.
    """

    is_outermost: ClassVar[bool] = False
    counts_batches: ClassVar[bool] = False

    def check(self, names: Sequence[str], sequence_length: int) -> None:
        """Refuse corpora or a length that cannot work (ConfigError), before any text is read."""
        if len(names) > 1:
            corpora = f"train_files names {len(names)} corpora ({', '.join(names)})"
            problem = f"{corpora}, and sampling={type(self).__name__} takes one"
            remedy = "use sampling=Mixture with their weights, or list the files without names"
            raise ConfigError(problem, remedy)

    @abstractmethod
    def build(self, corpora: Sequence[Corpus], sequence_length: int, seed: int) -> Samples:
        """Build the samples; the names of the corpora have been checked, and ``seed`` chooses the order.

        Raises:
            DataError: The text is too short.
        """

    def shaped(self, rows: Rows, index: int) -> Rows:
        """The samples of batch ``index`` of the run, reshaped; by default they stay as they are."""
        return rows
