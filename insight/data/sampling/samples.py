"""The interface of all sampling methods: training samples by epoch and position, as rows of token ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from insight.data.store import TokenStore
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError

_ROUNDS = 8
_WORD = (1 << 64) - 1
MAX_SEQUENCE_LENGTH = 1 << 24
"""Upper limit of the sequence length; a longer row would not fit into memory."""


def permute(indices: npt.NDArray[np.int64], size: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Images of ``indices`` under the permutation of ``range(size)`` given by ``(seed, epoch)``.

    A balanced Feistel network (Luby & Rackoff 1988) permutes the smallest range of 4^k numbers that holds
    ``size``; images outside ``range(size)`` are permuted again until they fall inside (cycle walking, Black &
    Rogaway 2002, "Ciphers with arbitrary finite domains"), on average less than four times.

    Args:
        indices: int64, any shape, each in ``range(size)``.
        size: Length of the permuted range, at least 1.
        seed: Any integer.
        epoch: Any integer; each epoch has its own permutation.
    """
    half_bits = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half_bits)) - 1)
    key = _mix_integer(_mix_integer(seed) ^ epoch)
    keys = [np.uint64(_mix_integer(key + number)) for number in range(_ROUNDS)]
    values = indices.astype(np.uint64).ravel()
    outside = np.arange(len(values))
    while len(outside):
        walked = values[outside]
        left, right = walked >> half_bits, walked & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        walked = (left << half_bits) | right
        values[outside] = walked
        outside = outside[walked >= np.uint64(size)]
    return values.astype(np.int64).reshape(indices.shape)


def random_integer(bound: int, seed: int, epoch: int, purpose: int) -> int:
    """An integer in ``range(bound)`` from its arguments, uniform up to a bias of ``bound / 2**64``."""
    return _mix_integer(_mix_integer(_mix_integer(seed) ^ epoch) + purpose) % bound


def _mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014): every input bit reaches every output bit."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = words ^ (words >> np.uint64(31))
    return mixed


def _mix_integer(word: int) -> int:
    """SplitMix64's next output after state ``word``."""
    word = (word + 0x9E3779B97F4A7C15) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)


Int64 = npt.NDArray[np.int64]
IGNORED_TARGET = -100
"""Target value of positions excluded from the loss (the default of torch's cross-entropy)."""


class Corpus(NamedTuple):
    """Text to train on.

    Attributes:
        name: Name of the corpus in ``train_files``; ``""`` if corpora have no names.
        title: Name of the corpus in messages.
        store: Tokens of the corpus.
    """

    name: str
    title: str
    store: TokenStore


class Rows(NamedTuple):
    """Samples, one per row.

    Attributes:
        inputs: int64 ``(rows, sequence)``.
        targets: int64 ``(rows, sequence)``; ``IGNORED_TARGET`` for positions excluded from the loss.
        document_ids: int64 ``(rows, sequence)``; the tokens of a document are contiguous. ``None`` if each
            row is one stretch of the stream.
    """

    inputs: Int64
    targets: Int64
    document_ids: Int64 | None = None


class Samples(ABC):
    """Training samples in an order that is a pure function of seed, epoch and position.

    Each sample has a number as its name: :meth:`order` gives the names at positions of an epoch, and
    :meth:`rows` reads the samples with these names. So ranks, workers and a resumed run need only positions.
    """

    @property
    @abstractmethod
    def num_samples(self) -> int:
        """Number of samples in one pass over the text."""

    @property
    @abstractmethod
    def num_names(self) -> int:
        """Upper bound (excluded) of the names."""

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

    def shaped(self, rows: Rows, index: int) -> Rows:
        """The rows, reshaped for batch ``index`` of the run."""
        return rows

    def facts(self) -> dict[str, Any]:
        """Statistics of the samples for reports, plain JSON values."""
        return {}

    def notes(self) -> list[str]:
        """Lines about the samples that are printed at the start of the run."""
        return []


def require_corpus_names(option: str, names: Iterable[object]) -> None:
    """Refuse corpus names that are empty, or that YAML has read as a number or a truth value.

    Raises:
        ConfigError: A name is empty or not text.
    """
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(
                "the name of a corpus is not text: YAML reads no, on, 007 or 3.10 as something else",
                "put the name in quotes, e.g. 'no': FILES",
                option=option,
                value="{" + f"{name}: ..." + "}",
            )
        if not name.strip():
            raise ConfigError(
                "the name of a corpus is empty", "give every corpus a name", option=option, value="{'': ...}"
            )


@dataclass(frozen=True)
class SamplingConfig(Component):
    """How the token stream becomes training samples."""

    @property
    def is_outermost(self) -> bool:
        """Whether it needs all corpora or whole batches, so that it cannot be used for one corpus."""
        return False

    @property
    def counts_batches(self) -> bool:
        """Whether samples depend on the number of their batch, so that the batch size must not change."""
        return False

    def check(self, names: Sequence[str], sequence_length: int) -> None:
        """Refuse options that cannot work, before any text is read.

        Raises:
            ConfigError: The sampling does not support the corpora or the length.
        """
        if len(names) > 1:
            raise ConfigError(
                f"train_files names {len(names)} corpora ({', '.join(names)}), and "
                f"sampling={type(self).__name__} takes one",
                "use sampling=Mixture with their weights, or list the files without names",
            )

    @abstractmethod
    def build(self, corpora: Sequence[Corpus], sequence_length: int, seed: int) -> Samples:
        """Build the samples; the names of the corpora have been checked, and ``seed`` chooses the order.

        Raises:
            DataError: The text is too short.
        """
