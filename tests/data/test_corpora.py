"""The embedded corpora are all there and whole."""

from __future__ import annotations

import pytest

from insight.data import list_corpora, read_corpus
from insight.runtime.errors import DataError

BYTES = {
    "austen-emma": 883_028,
    "austen-mansfieldpark": 883_280,
    "austen-northangerabbey": 433_411,
    "austen-persuasion": 466_854,
    "austen-prideprejudice": 684_768,
    "austen-sensesensibility": 673_688,
}
VERSES = {"kjv-rv1909-test": 879, "kjv-rv1909-train": 29_805, "kjv-rv1909-validation": 400}


def test_every_corpus_is_listed() -> None:
    assert list_corpora() == sorted([*BYTES, *VERSES])


@pytest.mark.parametrize("name", sorted(VERSES))
def test_every_verse_is_there_in_both_languages(name: str) -> None:
    header, *verses = read_corpus(name).splitlines()
    assert header.split("\t") == ["reference", "en", "es"]
    assert len(verses) == VERSES[name]
    assert all(len(verse.split("\t")) == 3 for verse in verses)


def test_verses_are_divided_by_book_and_john_is_the_test() -> None:
    books, references = {}, []
    for name in VERSES:
        found = [line.split("\t")[0] for line in read_corpus(name).splitlines()[1:]]
        references += found
        books[name.rpartition("-")[2]] = {reference.rpartition(" ")[0] for reference in found}
    assert books["test"] == {"John"}
    assert books["validation"] == {"Ruth", "Jonah", "Habakkuk", "Philippians", "James"}
    assert not books["train"] & (books["test"] | books["validation"])
    assert len(books["train"]) == 60
    assert len(set(references)) == len(references) == 31_084


@pytest.mark.parametrize("name", sorted(BYTES))
def test_novel_is_whole(name: str) -> None:
    assert len(read_corpus(name).encode("utf-8")) == BYTES[name]


def test_unknown_corpus_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"did you mean corpus:austen-emma\?"):
        read_corpus("austen-ema")
    with pytest.raises(DataError, match="known: austen-emma"):
        read_corpus("shakespeare")
