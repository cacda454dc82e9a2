"""The part set aside for validation shares no text with the rest, and is the same at every start."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data import read_corpus
from insight.data.validation_split import ValidationSplit
from insight.runtime.errors import DataError


def split(documents: list[str], fraction: float = 0.1, seed: int = 0) -> ValidationSplit:
    return ValidationSplit(lambda: iter(documents), fraction, seed, "a.txt")


def parts(documents: list[str], fraction: float = 0.1, seed: int = 0) -> tuple[list[str], list[str]]:
    divided = split(documents, fraction, seed)
    return list(divided.training()), list(divided.validation())


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


def test_end_of_each_of_few_documents() -> None:
    documents = [read_corpus("austen-persuasion"), read_corpus("austen-emma")]
    training, validation = parts(documents, 0.05)
    assert [a + b for a, b in zip(training, validation, strict=True)] == documents


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.text("ab \né", min_size=1, max_size=40), min_size=1, max_size=30),
    st.floats(0.01, 0.9),
    st.integers(0, 5),
)
def test_nothing_is_lost_or_used_twice(documents: list[str], fraction: float, seed: int) -> None:
    divided = split(documents, fraction, seed)
    try:
        training, validation = list(divided.training()), list(divided.validation())
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
