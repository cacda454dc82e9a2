"""The part set aside for validation shares no text with the rest, and is the same at every start."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data import read_corpus
from insight.data.sampling import permute
from insight.data.sources.formats import TextPart, as_documents, as_parts
from insight.data.split import ValidationSplit
from insight.runtime.errors import ConfigError, DataError


def split(documents: list[str], fraction: float = 0.1, seed: int = 0) -> ValidationSplit:
    return ValidationSplit(lambda _: as_parts(documents), fraction, seed, "a.txt")


def parts(documents: list[str], fraction: float = 0.1, seed: int = 0) -> tuple[list[str], list[str]]:
    divided = split(documents, fraction, seed)
    return list(as_documents(divided.parts(False))), list(as_documents(divided.parts(True)))


def test_whole_documents_where_there_are_many() -> None:
    documents = [f"document {number} " * (1 + number % 7) for number in range(200)]
    training, validation = parts(documents)
    assert sorted(training + validation) == sorted(documents)
    assert training == [text for text in documents if text in set(training)]  # order is kept
    share = sum(map(len, validation)) / sum(map(len, documents))
    assert 0.1 <= share < 0.12
    assert "of 200 training documents" in split(documents).describe()
    assert parts(documents) == (training, validation)
    assert parts(documents, seed=1) != (training, validation)


def test_end_of_one_document_at_a_paragraph() -> None:
    novel = read_corpus("austen-persuasion")
    training, validation = parts([novel], 0.05)
    assert training[0] + validation[0] == novel
    assert training[0].endswith("\n\n")
    assert not validation[0].startswith("\n")
    assert 0.045 < len(validation[0]) / len(novel) < 0.055
    assert "the last 5% of the training text, cut at a paragraph" in split([novel], 0.05).describe()


@pytest.mark.parametrize(("fraction", "share"), [(0.999, "99.9%"), (0.9999, "99.99%"), (0.0004, "0.04%")])
def test_a_share_is_never_rounded_to_all_or_nothing(fraction: float, share: str) -> None:
    text = "a word and more " * 5000
    assert f"the last {share} of the training text" in split([text], fraction).describe()
    many = [f"document {number}" for number in range(20_000)]
    assert "(0% of" not in split(many, fraction).describe()
    assert "(100% of" not in split(many, fraction).describe()


def test_end_of_each_of_few_documents() -> None:
    documents = [read_corpus("austen-persuasion"), read_corpus("austen-emma")]
    training, validation = parts(documents, 0.05)
    assert [a + b for a, b in zip(training, validation, strict=True)] == documents


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.text("ab \né", min_size=1, max_size=40), min_size=1, max_size=30),
    st.floats(0.01, 0.9),
    st.integers(0, 5),
)
def test_nothing_is_lost_or_used_twice(documents: list[str], fraction: float, seed: int) -> None:
    try:
        training, validation = parts(documents, fraction, seed)
    except DataError:
        assert all(len(text.encode()) < 2 for text in documents)
        return
    assert training
    if len(training) + len(validation) == len(documents) and sorted(training + validation) == sorted(
        documents
    ):
        return  # whole documents
    rest = iter(validation)
    for document, kept in zip(documents, training, strict=True):
        assert document == kept or document == kept + next(rest)
    assert next(rest, None) is None


def cut_of_whole(document: str, fraction: float) -> int:
    """Where a document is cut when all of it is in memory: what the streamed search has to find."""
    target = min(len(document) - 1, max(1, round(len(document) * (1 - fraction))))
    if target < 1:
        return len(document)
    reach = max(1, round(len(document) * fraction / 2))
    low, high = max(1, target - reach), min(len(document) - 1, target + reach)
    for boundary in (r"\n[ \t\r]*\n\s*", r"\n", r"\s"):
        ends = [match.end() for match in re.compile(boundary).finditer(document, low, high)]
        if ends:
            return min(ends, key=lambda end: abs(end - target))
    return target


@settings(deadline=None, max_examples=150)
@given(
    st.text("ab \n\t\r\u2003", min_size=2, max_size=80),
    st.floats(0.01, 0.9),
    st.lists(st.integers(0, 80), max_size=12),
)
def test_document_in_parts_is_cut_as_the_whole(document: str, fraction: float, places: list[int]) -> None:
    bounds = sorted({0, len(document), *(place for place in places if place < len(document))})
    chunks = [document[a:b] for a, b in itertools.pairwise(bounds)]
    pieces = [TextPart(chunk, index == len(chunks) - 1) for index, chunk in enumerate(chunks)]
    divided = ValidationSplit(lambda _: iter(pieces), fraction, 0, "a.txt")
    place = cut_of_whole(document, fraction)
    assert divided.cuts.tolist() == [place]
    assert list(as_documents(divided.parts(False))) == [document[:place]]
    assert list(as_documents(divided.parts(True))) == [document[place:]]


def test_drawing_in_blocks_is_drawing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [f"{number} " * (1 + number % 5) for number in range(100)]
    sizes = np.array([len(text) for text in documents])
    order = permute(np.arange(100), 100, 3, 0)
    count = int(np.searchsorted(np.cumsum(sizes[order]), 0.3 * sizes.sum())) + 1
    for block in (1, 7, 1 << 20):
        monkeypatch.setattr("insight.data.split._DRAWN_AT_ONCE", block)
        chosen = split(documents, 0.3, 3).chosen
        assert chosen is not None
        assert np.flatnonzero(chosen).tolist() == sorted(order[:count].tolist())


@pytest.mark.parametrize(
    ("text", "cut"), [("word " * 40, " "), ("line\n" * 40, "\n"), ("par\n\n" * 40, "\n\n"), ("x" * 200, "x")]
)
def test_best_boundary_there_is(text: str, cut: str) -> None:
    training, validation = parts([text], 0.3)
    assert training[0].endswith(cut)
    assert training[0] + validation[0] == text


def test_too_little_text() -> None:
    with pytest.raises(DataError, match="set validation_files"):
        parts(["x"])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_no_share(fraction: float) -> None:
    with pytest.raises(ConfigError) as error:
        split(["some text"], fraction)
    assert error.value.option == "fraction"


def test_documents_that_grow_between_two_passes() -> None:
    documents = [f"document {number}" for number in range(50)]
    divided = split(documents)
    assert divided.chosen is not None
    documents.append("one more")
    with pytest.raises(DataError, match="changed while it was read"):
        list(divided.parts(False))
