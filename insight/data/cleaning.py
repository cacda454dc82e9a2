"""Cleaning of parallel text: filters for pairs that teach nothing, each of which counts what it drops."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import xxhash

from insight.data.sources.parallel import SIDES, Pair
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError, did_you_mean
from insight.runtime.numbers import require_number

_JUDGED_CHARACTERS = 20
_MOSTLY = 0.5
_OVERLAP_WORDS = 4
# Nats by which two characters are likelier with the sides exchanged; English and Spanish differ by 2.1 nats.
_CLEAR_DIFFERENCE = 0.3
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class PairFilters(Component):
    """Which pairs of sentences are kept. A pair with an empty side is always dropped.

    Args:
        max_words: Most words of either side; ``None`` for no limit.
        max_length_ratio: Most times that the longer side may have the characters of the shorter one; sides
            of fewer than 20 characters are not judged. ``None`` for no limit.
        drop_identical: Whether pairs with equal sides are dropped.
        drop_duplicates: Whether a pair that occurred before is dropped.
        source_script: Script that at least half of the letters of the source have, such as ``LATIN``,
            ``CYRILLIC`` or ``CJK+HIRAGANA+KATAKANA``; ``None`` for any.
        target_script: Script that at least half of the letters of the target have; ``None`` for any.

    Raises:
        ConfigError: A value cannot work.
    """

    max_words: int | None = None
    max_length_ratio: float | None = None
    drop_identical: bool = False
    drop_duplicates: bool = False
    source_script: str | None = None
    target_script: str | None = None

    def __post_init__(self) -> None:
        require_number("max_words", self.max_words, 250, whole=True, optional=True, at_least=1)
        require_number("max_length_ratio", self.max_length_ratio, 3, optional=True, at_least=1)
        for side in SIDES:
            option = f"{side}_script"
            for script in _scripts_in(getattr(self, option)):
                if script not in _known_scripts():
                    remedy = did_you_mean(script, _known_scripts(), "use e.g. LATIN, CYRILLIC or CJK")
                    raise ConfigError("is no script", remedy, option=option, value=script)


class FilterCounts:
    """How many pairs were read, kept, and dropped by each filter.

    Attributes:
        num_read: Pairs that were read.
        dropped: Pairs that each filter dropped, by its reason; a pair counts for the first reason only.
        num_cut: Pairs of which a side was cut to the limit of length.
    """

    def __init__(self) -> None:
        self.num_read = 0
        self.dropped: Counter[str] = Counter()
        self.num_cut = 0

    @property
    def num_kept(self) -> int:
        """Pairs that passed all filters."""
        return self.num_read - self.dropped.total()

    def describe(self) -> str:
        """One line for people."""
        cut = f"; {self.num_cut:,} are cut to the limits of length" if self.num_cut else ""
        if not self.dropped:
            return f"all {self.num_read:,} pairs are kept{cut}"
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.most_common())
        return f"{self.num_kept:,} of {self.num_read:,} pairs are kept; left out: {reasons}{cut}"


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
    for side, text in zip(SIDES, (source, target), strict=True):
        script = getattr(filters, f"{side}_script")
        if script is not None and share_of_script(text, script) < _MOSTLY:
            return f"whose {side} is not mostly {script}"
    return ""


def share_of_script(text: str, script: str) -> float:
    """Fraction of the letters of a text that belong to a script, or to one of several joined by ``+``.

    A text without letters has fraction 1.
    """
    wanted = _scripts_in(script)
    scripts = [_script(character) for character in text if character.isalpha()]
    return sum(each in wanted for each in scripts) / len(scripts) if scripts else 1.0


def _scripts_in(script: str | None) -> list[str]:
    return script.upper().split("+") if script is not None else []


@cache
def _known_scripts() -> frozenset[str]:
    letters = (chr(code) for code in range(0x110000) if chr(code).isalpha())
    return frozenset(unicodedata.name(letter, "UNKNOWN").split()[0] for letter in letters)


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
    """Whether pairs clearly fit the profiles of other text better with their sides exchanged."""
    given = list(pairs)
    first, second = [pair[0] for pair in given], [pair[1] for pair in given]
    as_given = source.log_likelihood(first) + target.log_likelihood(second)
    exchanged = source.log_likelihood(second) + target.log_likelihood(first)
    return exchanged > as_given + _CLEAR_DIFFERENCE


def _bigrams(text: str) -> Iterator[str]:
    padded = f" {text.casefold()} "
    return (padded[place : place + 2] for place in range(len(padded) - 1))


def overlaps(held_out: list[Pair], training: Iterable[Pair], size: int = _OVERLAP_WORDS) -> list[float]:
    """How much of each held-out pair occurs in the training text, from 0 to 1.

    It is the share of a sentence's word n-grams that occur anywhere in the training text of the same side;
    the side with the larger share counts. A sentence of fewer words is compared as a whole.

    Args:
        held_out: Pairs to measure on.
        training: Pairs to train on; read once.
        size: Words in an n-gram.
    """
    grams = [[_word_grams(pair[side], size) for pair in held_out] for side in (0, 1)]
    wanted = [{gram for of_sentence in of_side for gram in of_sentence} for of_side in grams]
    seen: tuple[set[tuple[str, ...]], ...] = (set(), set())
    for pair in training:
        for side in (0, 1):
            seen[side].update(wanted[side].intersection(_word_grams(pair[side], size)))
    shares = [
        [sum(gram in seen[side] for gram in of_sentence) / len(of_sentence) for of_sentence in grams[side]]
        for side in (0, 1)
    ]
    return [max(pair) for pair in zip(*shares, strict=True)]


def _word_grams(text: str, size: int) -> list[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return list(zip(*(words[start:] for start in range(size)), strict=False)) or [tuple(words)]
