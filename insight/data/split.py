"""Set aside a part of the training text for validation if there are no validation files."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from insight.data.sampling import permute
from insight.data.sources.decoding import TextRepairs
from insight.data.sources.formats import TextPart, without_empty
from insight.runtime.errors import ConfigError, DataError
from insight.runtime.formats import format_share

# Whole documents are used if they hold at most this multiple of the wanted fraction.
_MOST_OVERSHOOT = 2.0
# Kinds of places to cut, the best kind first; all consist of white space.
_BOUNDARIES = (re.compile(r"\n[ \t\r]*\n\s*"), re.compile(r"\n"), re.compile(r"\s"))
_DRAWN_AT_ONCE = 1 << 18
SIZES = np.dtype([("bytes", np.int64), ("characters", np.int64)])
"""UTF-8 bytes and characters of a document."""


class ValidationSplit:
    """Divides documents into a training and a validation part that share no text.

    The validation part consists of whole documents, drawn with the seed until they hold the fraction of the
    bytes. If that would take more than twice the fraction or leave nothing for training, it is the last part
    of every document instead, cut at a paragraph (else at a line, a word or a character).

    The text is read several times; only the sizes of the documents are held in memory: ``measured``, the
    :data:`SIZES` of all documents, which tasks may measure and which is ``None`` until they are known.

    Args:
        documents: Returns the parts of all documents at each call, and counts repairs in its argument.
        fraction: Fraction of the bytes for validation, between 0 and 1.
        seed: Chooses the documents.
        names: Name of the text in messages.
    """

    def __init__(
        self, documents: Callable[[TextRepairs], Iterator[TextPart]], fraction: float, seed: int, names: str
    ) -> None:
        if not 0 < fraction < 1:
            raise ConfigError("must be between 0 and 1", "use e.g. 0.05", option="fraction", value=fraction)
        self._documents = documents
        self._fraction = fraction
        self._seed = seed
        self._names = names
        self.measured: npt.NDArray[np.void] | None = None

    def parts(self, is_validation: bool, repairs: TextRepairs | None = None) -> Iterator[TextPart]:
        """The validation or the training part; ``repairs`` counts the repairs of the whole text."""
        division = self.division
        documents = self._documents(repairs or TextRepairs())
        return without_empty(select_parts(documents, division, is_validation, names=self._names))

    def describe(self) -> str:
        """Describe the validation part in words."""
        total = len(self._sizes)
        if self.chosen is None:
            whose = "the training text" if total == 1 else f"each of {total} training documents"
            return f"the last {format_share(self._fraction)} of {whose}, cut at a paragraph"
        sizes = self._sizes["bytes"]
        share = format_share(float(sizes[self.chosen].sum() / sizes.sum()))
        count = np.count_nonzero(self.chosen)
        return f"{count} of {total} training documents ({share} of the text, seed {self._seed})"

    @property
    def division(self) -> npt.NDArray[Any]:
        """:attr:`chosen`, or :attr:`cuts` if that is ``None``: the input of :func:`select_parts`."""
        return self.cuts if self.chosen is None else self.chosen

    @property
    def _sizes(self) -> npt.NDArray[np.void]:
        if self.measured is None:
            self.measured = np.fromiter(sizes_of(self._documents(TextRepairs())), dtype=SIZES)
        return self.measured

    @functools.cached_property
    def chosen(self) -> npt.NDArray[np.bool_] | None:
        """Which documents are for validation; ``None`` if every document is cut instead."""
        sizes: npt.NDArray[np.int64] = self._sizes["bytes"]
        wanted = self._fraction * sizes.sum()
        chosen = np.zeros(len(sizes), dtype=np.bool_)
        total = 0
        for first in range(0, len(sizes), _DRAWN_AT_ONCE):
            drawn = np.arange(first, min(first + _DRAWN_AT_ONCE, len(sizes)))
            order = permute(drawn, len(sizes), self._seed, 0)
            totals = total + np.cumsum(sizes[order])
            count = int(np.searchsorted(totals, wanted)) + 1
            chosen[order[:count]] = True
            if count <= len(order):
                if first + count < len(sizes) and totals[count - 1] <= _MOST_OVERSHOOT * wanted:
                    return chosen
                break
            total = int(totals[-1])
        if sizes.max() < 2:
            problem = f"{self._names}: too little text to take a validation part from it"
            raise DataError(problem, "set validation_files")
        return None

    @functools.cached_property
    def cuts(self) -> npt.NDArray[np.int64]:
        """Position in characters at which the validation part of each document begins."""
        lengths = self._sizes["characters"]
        searches = (_CutSearch(int(length), self._fraction) for length in lengths)
        cuts = np.zeros(len(lengths), dtype=np.int64)
        index, search = 0, next(searches, None)
        for part in self._documents(TextRepairs()):
            if search is None:
                break
            search.look(part.text)
            if part.is_last:
                cuts[index] = search.result()
                index, search = index + 1, next(searches, None)
        return cuts


def select_parts(
    parts: Iterable[TextPart],
    division: npt.NDArray[Any],
    is_validation: bool,
    document: int = 0,
    character: int = 0,
    names: str = "the text",
) -> Iterator[TextPart]:
    """The training or the validation part of documents; some documents may become empty.

    Args:
        parts: The documents, from any place on.
        division: The :attr:`ValidationSplit.division` of all documents.
        is_validation: Whether to return the validation part instead of the training part.
        document: Index of the document at the beginning of ``parts``.
        character: Number of its characters before ``parts``.
        names: Name of the text in messages.
    """
    by_document = division.dtype == np.bool_
    for part in parts:
        if document >= len(division):
            raise DataError(f"{names}: changed while it was read", "start again")
        if not by_document:
            # Both pieces of a document end with its last part, although one of them may be empty here.
            place = max(0, int(division[document]) - character)
            yield TextPart(part.text[place:] if is_validation else part.text[:place], part.is_last)
        elif bool(division[document]) is is_validation:
            yield part
        character = 0 if part.is_last else character + len(part.text)
        document += part.is_last


class _CutSearch:
    """Finds where to cut one document: at the nearest boundary of the best kind near the target.

    Both parts get at least one character.
    """

    def __init__(self, length: int, fraction: float) -> None:
        self._length = length
        self._target = min(length - 1, max(1, round(length * (1 - fraction))))
        reach = max(1, round(length * fraction / 2))
        self._low, self._high = max(1, self._target - reach), min(length - 1, self._target + reach)
        self._nearest: list[int | None] = [None] * len(_BOUNDARIES)
        self._position = 0
        self._space = ""

    def look(self, text: str) -> None:
        first = self._position
        self._position += len(text)
        # A boundary lies inside a run of white space, so a run at the end is kept until it is complete.
        stretch = self._space + text[max(0, self._low - first) : max(0, self._high - first)]
        if not stretch:
            return
        start = max(self._low, first) - len(self._space)
        words = stretch.rstrip() if self._position < self._high else stretch
        self._space = stretch[len(words) :]
        for kind, boundary in enumerate(_BOUNDARIES):
            for match in boundary.finditer(words):
                place, known = start + match.end(), self._nearest[kind]
                # Of two equally near places, the first is kept.
                if known is None or abs(place - self._target) < abs(known - self._target):
                    self._nearest[kind] = place
                if place > self._target:
                    break
            if self._nearest[kind] is not None:
                break  # The other kinds are worse.

    def result(self) -> int:
        """Position of the cut, once the whole document has been looked at."""
        if self._length < 2:
            return self._length
        return next((place for place in self._nearest if place is not None), self._target)


def sizes_of(parts: Iterable[TextPart], *, with_open: bool = False) -> Iterator[tuple[int, int]]:
    """UTF-8 bytes and characters of each document, and with ``with_open`` of an unfinished last one."""
    num_bytes = num_characters = 0
    is_open = False
    for part in parts:
        num_bytes += len(part.text) if part.text.isascii() else len(part.text.encode("utf-8"))
        num_characters += len(part.text)
        is_open = not part.is_last
        if part.is_last:
            yield num_bytes, num_characters
            num_bytes = num_characters = 0
    if is_open and with_open:
        yield num_bytes, num_characters
