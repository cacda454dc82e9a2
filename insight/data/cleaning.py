"""Cleaning of parallel text: filters for pairs that teach nothing, each of which counts what it drops."""

from __future__ import annotations

import dataclasses
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import xxhash

from insight.data.sources.parallel import Pair
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class PairFilters(Component):
    """Which pairs of sentences are kept. A pair with an empty side is always dropped.

    Args:
        max_words: Most words of either side; ``None`` for no limit.
        max_length_ratio: Most times that the longer side may have the characters of the shorter one; sides
            of fewer than 20 characters are not judged. ``None`` for no limit.
        drop_identical: Whether pairs with equal sides are dropped.
        drop_duplicates: Whether a pair that occurred before is dropped.
        source_script: Script that most letters of the source have, such as ``LATIN`` or ``CYRILLIC``;
            ``None`` for any.
        target_script: Script that most letters of the target have; ``None`` for any.
    """

    max_words: int | None = None
    max_length_ratio: float | None = None
    drop_identical: bool = False
    drop_duplicates: bool = False
    source_script: str | None = None
    target_script: str | None = None

    def __post_init__(self) -> None:
        if self.max_words is not None and self.max_words < 1:
            raise ConfigError("must be at least 1", "use 250", option="max_words", value=self.max_words)
        ratio = self.max_length_ratio
        if ratio is not None and not 1 <= ratio < math.inf:
            raise ConfigError("must be at least 1", "use 3", option="max_length_ratio", value=ratio)
        for name in ("source_script", "target_script"):
            script = getattr(self, name)
            if script is not None and script != script.upper():
                raise ConfigError(
                    "must be the name of a script in capitals",
                    f"use {script.upper()}",
                    option=name,
                    value=script,
                )


RECOMMENDED_FILTERS = PairFilters(
    max_words=250, max_length_ratio=3.0, drop_identical=True, drop_duplicates=True
)
"""The filters of ``insight tokenizer clean`` where no option says otherwise."""


class FilterCounts:
    """How many pairs were read, kept, and dropped by each filter.

    Attributes:
        num_read: Pairs that were read.
        dropped: Pairs that each filter dropped, by its reason; a pair counts for the first reason only.
    """

    def __init__(self) -> None:
        self.num_read = 0
        self.dropped: Counter[str] = Counter()

    @property
    def num_kept(self) -> int:
        """Pairs that passed all filters."""
        return self.num_read - self.dropped.total()

    def describe(self) -> str:
        """One line for people."""
        if not self.dropped:
            return f"all {self.num_read:,} pairs are kept"
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.most_common())
        return f"{self.num_kept:,} of {self.num_read:,} pairs are kept; dropped: {reasons}"


def filter_pairs(pairs: Iterable[Pair], filters: PairFilters, counts: FilterCounts) -> Iterator[Pair]:
    """The pairs that pass, with white space at both ends of each side removed.

    Args:
        pairs: The pairs.
        filters: Which are kept.
        counts: Counts them.
    """
    seen: set[int] = set()
    for source, target in pairs:
        pair = source.strip(), target.strip()
        counts.num_read += 1
        reason = _reason_to_drop(*pair, filters)
        if not reason and filters.drop_duplicates:
            # A hash of 64 bits a pair: among a billion pairs one in 37 billion billionths collides.
            key = xxhash.xxh3_64_intdigest("\0".join(pair).encode("utf-8"))
            reason = "duplicates" if key in seen else ""
            seen.add(key)
        if reason:
            counts.dropped[reason] += 1
        else:
            yield pair


def _reason_to_drop(source: str, target: str, filters: PairFilters) -> str:
    if not source or not target:
        return "with an empty side"
    if filters.drop_identical and source == target:
        return "with identical sides"
    if filters.max_words is not None and max(len(source.split()), len(target.split())) > filters.max_words:
        return f"longer than {filters.max_words} words"
    if filters.max_length_ratio is not None:
        shorter, longer = sorted((len(source), len(target)))
        if longer >= _JUDGED_CHARACTERS and longer > filters.max_length_ratio * shorter:
            return f"with a length ratio above {filters.max_length_ratio:g}"
    for text, script, side in (
        (source, filters.source_script, "source"),
        (target, filters.target_script, "target"),
    ):
        if script is not None and share_of_script(text, script) < 0.5:
            return f"whose {side} is not mostly {script}"
    return ""


_JUDGED_CHARACTERS = 20


def share_of_script(text: str, script: str) -> float:
    """Fraction of the letters of a text that belong to a script; 1 where it has no letters."""
    scripts = [_script(character) for character in text if character.isalpha()]
    return scripts.count(script) / len(scripts) if scripts else 1.0


@lru_cache(maxsize=1 << 14)
def _script(character: str) -> str:
    """The first word of a letter's Unicode name, which is its script for all common ones."""
    return unicodedata.name(character, "UNKNOWN").split()[0]


class LanguageProfile:
    """How often pairs of characters occur in a language, to notice languages that were swapped.

    Args:
        texts: Text of the language; a few hundred sentences are enough.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._counts: Counter[str] = Counter()
        for text in texts:
            self._counts.update(_bigrams(text))
        self._total = self._counts.total()
        self._num_kinds = len(self._counts) + 1

    def log_likelihood(self, texts: Iterable[str]) -> float:
        """Mean log-probability of a pair of characters, with add-one smoothing, in nats."""
        found = Counter(bigram for text in texts for bigram in _bigrams(text))
        total = found.total()
        if not total:
            return 0.0
        return (
            sum(
                count * math.log((self._counts[bigram] + 1) / (self._total + self._num_kinds))
                for bigram, count in found.items()
            )
            / total
        )


def looks_swapped(source: LanguageProfile, target: LanguageProfile, pairs: Iterable[Pair]) -> bool:
    """Whether pairs fit the profiles of the training text better with their sides exchanged."""
    given = list(pairs)
    first, second = [pair[0] for pair in given], [pair[1] for pair in given]
    as_given = source.log_likelihood(first) + target.log_likelihood(second)
    return source.log_likelihood(second) + target.log_likelihood(first) > as_given


def _bigrams(text: str) -> Iterator[str]:
    padded = f" {text.casefold()} "
    return (padded[place : place + 2] for place in range(len(padded) - 1))


def drop_overlapping(
    held_out: list[Pair], training: Iterable[Pair], max_overlap: float, size: int = 4
) -> tuple[list[Pair], int]:
    """Leave out held-out pairs that recur nearly word for word in the training text.

    A pair is dropped where more than ``max_overlap`` of the word n-grams of either side occur anywhere in the
    training text of that side. A side that is shorter than an n-gram is compared as a whole.

    Args:
        held_out: Pairs to measure on.
        training: Pairs to train on; read once.
        max_overlap: Largest share of n-grams that may occur.
        size: Words in an n-gram.

    Returns:
        The pairs that are kept, and the number of those dropped.
    """
    wanted = [{gram for pair in held_out for gram in _word_grams(pair[side], size)} for side in (0, 1)]
    seen: list[set[tuple[str, ...]]] = [set(), set()]
    for pair in training:
        for side in (0, 1):
            grams = _word_grams(pair[side], size)
            seen[side].update(gram for gram in grams if gram in wanted[side])
            whole = tuple(_words(pair[side]))
            if len(whole) < size and whole in wanted[side]:
                seen[side].add(whole)
    kept = [
        pair
        for pair in held_out
        if max(_share(_word_grams(pair[side], size), seen[side]) for side in (0, 1)) <= max_overlap
    ]
    return kept, len(held_out) - len(kept)


def _share(grams: list[tuple[str, ...]], seen: set[tuple[str, ...]]) -> float:
    return sum(gram in seen for gram in grams) / len(grams)


def _words(text: str) -> list[str]:
    kept = "".join(character if character.isalnum() else " " for character in text.casefold())
    return kept.split()


def _word_grams(text: str, size: int) -> list[tuple[str, ...]]:
    words = _words(text)
    return [tuple(words[start : start + size]) for start in range(len(words) - size + 1)] or [tuple(words)]


def merged(filters: PairFilters, **options: object) -> PairFilters:
    """``filters`` with the options that are given, ``None`` keeping a value."""
    changed = {name: value for name, value in options.items() if value is not None}
    return dataclasses.replace(filters, **changed)  # type: ignore[arg-type]
