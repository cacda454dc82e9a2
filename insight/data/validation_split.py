"""Take a validation part from the training text when the user gives none."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from insight.data.sampling import permute
from insight.runtime.errors import DataError

# Whole documents are taken while they make a part of at most this many times the asked fraction.
_MOST_OVERSHOOT = 2.0
_BOUNDARIES = (re.compile(r"\n[ \t\r]*\n\s*"), re.compile(r"\n"), re.compile(r"\s"))


class ValidationSplit:
    """Two parts of a list of documents that share no text.

    Whole documents, drawn by the seed until they hold the fraction of the bytes. Where documents are so few
    or so uneven that this would take more than twice the fraction or leave nothing, the last part of every
    document instead, cut at a paragraph (else a line, a word, a character).

    Args:
        documents: Gives the documents from the first on, each time it is called.
        fraction: Share of the bytes for validation, between 0 and 1.
        seed: Chooses the documents.
        names: What messages call the text.
    """

    def __init__(
        self, documents: Callable[[], Iterator[str]], fraction: float, seed: int, names: str
    ) -> None:
        self._documents = documents
        self._fraction = fraction
        self._seed = seed
        self._names = names

    def training(self) -> Iterator[str]:
        """The training part."""
        for index, document in enumerate(self._documents()):
            if self._chosen is None:
                yield document[: self._cut(document)]
            elif index not in self._chosen:
                yield document

    def validation(self) -> Iterator[str]:
        """The validation part."""
        for index, document in enumerate(self._documents()):
            if self._chosen is None:
                yield from filter(None, [document[self._cut(document) :]])
            elif index in self._chosen:
                yield document

    def describe(self) -> str:
        """One line about what was taken."""
        total = len(self._sizes)
        if self._chosen is None:
            whose = "the training text" if total == 1 else f"each of {total} training documents"
            return f"the last {self._fraction:.0%} of {whose}, cut at a paragraph"
        share = self._sizes[sorted(self._chosen)].sum() / self._sizes.sum()
        return (
            f"{len(self._chosen)} of {total} training documents ({share:.1%} of the text, seed {self._seed})"
        )

    @functools.cached_property
    def _sizes(self) -> npt.NDArray[np.int64]:
        return np.fromiter((len(text.encode("utf-8")) for text in self._documents()), dtype=np.int64)

    @functools.cached_property
    def _chosen(self) -> frozenset[int] | None:
        """Indices of the documents for validation, or ``None`` when documents are cut instead."""
        sizes = self._sizes
        wanted = self._fraction * sizes.sum()
        order = permute(np.arange(len(sizes)), len(sizes), self._seed, 0)
        totals = np.cumsum(sizes[order])
        count = int(np.searchsorted(totals, wanted)) + 1
        if count < len(sizes) and totals[count - 1] <= _MOST_OVERSHOOT * wanted:
            return frozenset(order[:count].tolist())
        if sizes.max() < 2:
            raise DataError(
                f"{self._names}: too little text to take a validation part from it", "set validation_files"
            )
        return None

    def _cut(self, document: str) -> int:
        """Where the validation part of a document begins; both parts get at least one character."""
        target = min(len(document) - 1, max(1, round(len(document) * (1 - self._fraction))))
        if target < 1:
            return len(document)
        reach = max(1, round(len(document) * self._fraction / 2))
        low, high = max(1, target - reach), min(len(document) - 1, target + reach)
        for boundary in _BOUNDARIES:
            ends = [match.end() for match in boundary.finditer(document, low, high)]
            if ends:
                return min(ends, key=lambda end: abs(end - target))
        return target
