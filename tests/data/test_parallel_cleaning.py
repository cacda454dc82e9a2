"""The filters of parallel text, overlap and language profiles against plain reimplementations."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data.cleaning import (
    FilterCounts,
    LanguageProfile,
    PairFilters,
    filter_pairs,
    looks_swapped,
    overlaps,
    share_of_script,
)
from insight.data.sources.parallel import Pair, expand_parallel
from insight.runtime.errors import ConfigError

SENTENCES = st.text("ab cé.яж漢 ", max_size=40)
PAIRS = st.lists(st.tuples(SENTENCES, SENTENCES), max_size=30)
FILTERS = st.builds(
    PairFilters,
    max_words=st.none() | st.integers(1, 6),
    max_length_ratio=st.none() | st.floats(1, 4),
    drop_identical=st.booleans(),
    drop_duplicates=st.booleans(),
    source_script=st.sampled_from([None, "LATIN", "cyrillic"]),
    target_script=st.sampled_from([None, "LATIN", "CJK+CYRILLIC"]),
)


def plainly_kept(pairs: list[Pair], filters: PairFilters) -> list[Pair]:
    """The pairs that pass, one rule after the other, each over all pairs that are left."""

    def is_of(text: str, scripts: str | None) -> bool:
        letters = [letter for letter in text if letter.isalpha()]
        names = [name.upper() for name in (scripts or "").split("+")]
        fitting = [
            letter
            for letter in letters
            if any(unicodedata.name(letter).startswith(f"{name} ") for name in names)
        ]
        return scripts is None or not letters or 2 * len(fitting) >= len(letters)

    left = [(en.strip(), es.strip()) for en, es in pairs]
    left = [pair for pair in left if all(pair)]
    if filters.drop_identical:
        left = [(en, es) for en, es in left if en != es]
    if filters.max_words is not None:
        left = [pair for pair in left if all(len(side.split()) <= filters.max_words for side in pair)]
    if filters.max_length_ratio is not None:
        left = [
            pair
            for pair in left
            if max(map(len, pair)) < 20
            or max(map(len, pair)) / min(map(len, pair)) <= filters.max_length_ratio
        ]
    left = [
        (en, es) for en, es in left if is_of(en, filters.source_script) and is_of(es, filters.target_script)
    ]
    return list(dict.fromkeys(left)) if filters.drop_duplicates else left


@settings(deadline=None, max_examples=150)
@given(PAIRS, FILTERS)
def test_filters_equal_a_plain_reimplementation(pairs: list[Pair], filters: PairFilters) -> None:
    counts = FilterCounts()
    kept = list(filter_pairs(pairs, filters, counts))
    assert kept == plainly_kept(pairs, filters)
    assert (counts.num_read, counts.num_kept) == (len(pairs), len(kept))
    assert all(count > 0 for count in counts.dropped.values())


def test_planted_fault_a_ratio_of_words_is_not_one_of_characters() -> None:
    pairs = [("internationalisation of everything", "a b c d e f g h i j k l m n o")]
    filters = PairFilters(max_length_ratio=2)
    words = [len(side.split()) for side in pairs[0]]
    assert max(words) / min(words) > 2
    assert list(filter_pairs(pairs, filters, FilterCounts())) == plainly_kept(pairs, filters) == pairs


def test_every_filter_counts_under_its_own_reason() -> None:
    pairs = [
        ("one", "uno"),
        ("one", "uno"),
        ("", "dos"),
        ("same", "same"),
        ("a b c d", "x"),
        ("a" * 30, "b" * 5),
        ("слово", "palabra"),
        ("word", "слово"),
    ]
    filters = PairFilters(3, 3.0, True, True, "LATIN", "LATIN")
    counts = FilterCounts()
    assert list(filter_pairs(pairs, filters, counts)) == pairs[:1]
    assert counts.dropped == {
        "duplicates": 1,
        "with an empty side": 1,
        "with identical sides": 1,
        "longer than 3 words": 1,
        "with a length ratio above 3": 1,
        "whose source is not mostly LATIN": 1,
        "whose target is not mostly LATIN": 1,
    }
    assert counts.describe().startswith("1 of 8 pairs are kept; left out: ")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_words": 0}, "max_words=0"),
        ({"max_length_ratio": 0.5}, "max_length_ratio=0.5"),
        ({"max_length_ratio": float("nan")}, "max_length_ratio=nan"),
        ({"source_script": "LATN"}, "did you mean 'LATIN'?"),
        ({"target_script": "latin+cyrilic"}, "target_script=CYRILIC"),
        ({"target_script": ""}, "target_script="),
    ],
)
def test_filters_that_cannot_work(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError) as error:
        PairFilters(**options)  # type: ignore[arg-type]
    assert named in str(error.value)


def test_scripts() -> None:
    assert share_of_script("Ärger, été — 1,5!", "LATIN") == 1
    assert share_of_script("漢字とカナ", "CJK+HIRAGANA+KATAKANA") == 1
    assert share_of_script("漢字とカナ", "CJK") == 2 / 5
    assert share_of_script("?!", "LATIN") == 1


# ---------------------------------------------------------------------- overlap


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.text("ab ", max_size=14), st.text("xy ", max_size=14)), max_size=5),
    st.lists(st.tuples(st.text("ab ", max_size=14), st.text("xy ", max_size=14)), max_size=5),
    st.integers(1, 4),
)
def test_overlap_equals_a_plain_search(held_out: list[Pair], training: list[Pair], size: int) -> None:
    def grams(text: str) -> list[str]:
        words = text.split()
        return [" ".join(words[first : first + size]) for first in range(len(words) - size + 1)] or [
            " ".join(words)
        ]

    def share(text: str, side: int) -> float:
        known = {gram for pair in training for gram in grams(pair[side])}
        return sum(gram in known for gram in grams(text)) / len(grams(text))

    assert overlaps(held_out, training, size) == [max(share(en, 0), share(es, 1)) for en, es in held_out]


@pytest.mark.slow
def test_eighteen_verses_of_john_recur_in_the_other_books() -> None:
    train, test = (
        [
            pair
            for each in expand_parallel(f"corpus:kjv-rv1909-{name}", "en", "es", "x")
            for pair in each.pairs()
        ]
        for name in ("train", "test")
    )
    found = overlaps(test, train)
    assert [sum(overlap > limit for overlap in found) for limit in (0.3, 0.4, 0.5, 0.6)] == [157, 56, 18, 8]
    # A plain search confirms the one that overlaps most.
    most = found.index(max(found))
    assert test[most][0] == "Then they went out of the city, and came unto him."
    assert any("and came unto him" in en for en, _ in train)


def test_profiles_notice_exchanged_languages_in_the_bible() -> None:
    pairs = [
        pair
        for each in expand_parallel("corpus:kjv-rv1909-validation", "en", "es", "x")
        for pair in each.pairs()
    ]
    source, target = (LanguageProfile(pair[side] for pair in pairs[:200]) for side in (0, 1))
    for size in (3, 20, 200):
        rest = pairs[200 : 200 + size]
        assert not looks_swapped(source, target, rest)
        assert looks_swapped(source, target, [pair[::-1] for pair in rest])
    # Within one language nothing is exchanged.
    english = [(pair[0], pair[0]) for pair in pairs]
    assert not looks_swapped(source, source, english)
