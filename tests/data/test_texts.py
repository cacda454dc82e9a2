"""Documents that a Python program has, in place of files: lists, functions, objects of `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from insight.data import (
    BPETokenizerConfig,
    ByteTokenizer,
    ByteTokenizerConfig,
    LanguageModelingDataModule,
    Preparation,
    TextFiles,
    Texts,
    TokenStore,
)
from insight.runtime.errors import DataError

DOCUMENTS = [f"document {number}: naïve text" for number in range(40)]


def prepared(texts: Texts, cache: Path, fraction: float = 0.0) -> Preparation:
    return Preparation(TextFiles(texts, None, None, None, "text", fraction, 0), ByteTokenizer(), cache)


def texts_of(store: TokenStore) -> list[str]:
    return [ByteTokenizer().decode(store.document(index)) for index in range(store.num_documents)]


def test_kinds_of_documents_are_the_same_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": number, "text": text} for number, text in enumerate(DOCUMENTS)]
    kinds: list[Any] = [DOCUMENTS, tuple(DOCUMENTS), lambda: iter(DOCUMENTS), rows, lambda: (r for r in rows)]
    stores = [prepared(Texts(kind), tmp_path).store("train") for kind in kinds]
    assert texts_of(stores[0]) == DOCUMENTS
    assert len({store.path for store in stores}) == 1  # found by their content
    assert capsys.readouterr().err.count("encoded the given texts") == 1


def test_empty_documents_are_left_out(tmp_path: Path) -> None:
    store = prepared(Texts(["", "a", {"text": None}, "b"]), tmp_path).store("train")
    assert texts_of(store) == ["a", "b"]


def test_division_and_tokenizer_as_of_files(tmp_path: Path) -> None:
    preparation = Preparation(
        TextFiles(Texts(DOCUMENTS * 20), None, None, None, "text", 0.1, 0),
        BPETokenizerConfig(270),
        tmp_path,
    )
    stores = [preparation.store(split) for split in ("train", "validation")]
    assert sum(store.num_documents for store in stores) == 800
    assert stores[0].manifest.origin["files"] == ["the given texts"]


def test_data_module_takes_them(tmp_path: Path) -> None:
    data = LanguageModelingDataModule(
        Texts(DOCUMENTS),  # type: ignore[arg-type]
        tokenizer=ByteTokenizerConfig(),
        sequence_length=16,
        batch_size=2,
        cache_dir=str(tmp_path),
    )
    data.setup("fit")
    assert next(iter(data.train_dataloader())).input_ids.shape == (2, 16)


def test_documents_that_come_otherwise_the_second_time(tmp_path: Path) -> None:
    passes = iter(range(100))

    def documents() -> Iterator[str]:
        yield from DOCUMENTS
        yield f"pass {next(passes)}"

    with pytest.raises(DataError, match="changed while it was read"):
        prepared(Texts(documents), tmp_path).store("train")
    assert not list((tmp_path / "stores").glob("[0-9a-f]*[0-9a-f]"))


@pytest.mark.parametrize(
    ("documents", "problem"),
    [
        ("one text", "is one text"),
        (b"bytes", "is one text"),
        (iter(["a"]), "used up after one pass"),
        ((text for text in DOCUMENTS), "used up after one pass"),
        ({"train": ["a"], "test": ["b"]}, r"is a mapping \(train, test\)"),
        (3, "is int, not a collection"),
        (None, "is NoneType, not a collection"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_collection_of_texts(documents: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        Texts(documents)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("documents", "problem"),
    [
        (["a", 3], "document 1 is int, not text"),
        (["a", b"b"], "document 1 is bytes, not text"),
        ([{"txt": "a"}], "document 0 has no field 'text': it has 'txt'; text_field='txt'?"),
        (["a", "b\ud800"], "document 1 has half a surrogate pair"),
        ([], "holds no text"),
        ([""], "holds no text"),
    ],
    ids=str,
)
def test_documents_that_are_no_texts(tmp_path: Path, documents: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        prepared(Texts(documents), tmp_path).store("train")


def test_objects_of_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_dict({"id": list(range(40)), "text": DOCUMENTS})
    store = prepared(Texts(dataset), tmp_path).store("train")
    assert texts_of(store) == DOCUMENTS
    streamed = prepared(Texts(dataset.to_iterable_dataset()), tmp_path).store("train")
    assert streamed.path == store.path
    with pytest.raises(DataError, match=r"is a mapping \(train\)"):
        Texts(datasets.DatasetDict({"train": dataset}))
