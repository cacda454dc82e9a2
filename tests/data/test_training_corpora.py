"""Corpora with names: each in a store of its own, together what reports and the tokenizer see."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from insight.data import (
    BPETokenizerConfig,
    ByteTokenizerConfig,
    CanaryInjection,
    LanguageModelingDataModule,
    Mixture,
    Packing,
    SequenceLengthWarmup,
)
from insight.data.store.reader import JoinedStore
from insight.runtime.errors import ConfigError, DataError

Make = Callable[..., LanguageModelingDataModule]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    (tmp_path / "a.txt").write_text("alpha beta gamma " * 40)
    (tmp_path / "b.txt").write_text("one two three four " * 9)
    (tmp_path / "c.txt").write_text("held out text")

    def build(**options: object) -> LanguageModelingDataModule:
        settings: dict[str, object] = {
            "train_files": {"greek": [str(tmp_path / "a.txt")], "numbers": str(tmp_path / "b.txt")},
            "validation_files": str(tmp_path / "c.txt"),
            "tokenizer": ByteTokenizerConfig(),
            "sampling": Mixture({"greek": 0.5, "numbers": 0.5}),
            "sequence_length": 16,
            "batch_size": 4,
            "cache_dir": str(tmp_path / "cache"),
        }
        return LanguageModelingDataModule(**(settings | options))  # type: ignore[arg-type]

    return build


def test_samples_are_half_of_each(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    data = make()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    texts = [data.tokenizer.decode(row) for row in batch.input_ids.numpy()]
    assert sum("a" in text for text in texts) == 2
    assert "mixture: 50.0% greek, 50.0% numbers of the samples" in capsys.readouterr().err
    assert data.summary()["samples"]["greek"] == {"share": 0.5, "samples": 41}
    assert data.summary()["sampling"]["init_args"]["weights"] == {"greek": 0.5, "numbers": 0.5}


def test_all_text_is_that_of_the_corpora(make: Make, tmp_path: Path) -> None:
    data = make()
    data.setup()
    store = data.store("train")
    assert isinstance(store, JoinedStore)
    texts = [(tmp_path / f"{name}.txt").read_text() for name in "ab"]
    assert [data.tokenizer.decode(store.document(index)) for index in range(2)] == texts
    assert store.num_bytes == sum(map(len, texts))
    assert data.summary()["splits"]["train"]["bytes"] == store.num_bytes
    assert [Path(name).name for name in data.summary()["splits"]["train"]["files"]] == ["a.txt", "b.txt"]
    store.verify()
    again = pickle.loads(pickle.dumps(store))
    assert again.tokens(0, again.num_tokens).tolist() == store.tokens(0, store.num_tokens).tolist()
    ends = store.document_starts()
    assert ends.tolist() == [0, len(texts[0]) + 1, store.num_tokens]


def test_one_tokenizer_learns_from_all(make: Make) -> None:
    data = make(tokenizer=BPETokenizerConfig(280))
    data.setup("fit")
    pieces = [data.tokenizer.token_bytes(index) for index in range(data.vocabulary_size)]
    for text in (b"alpha beta gamma", b"one two three four"):
        assert any(len(piece) > 1 and piece in text for piece in pieces)


def test_stores_of_corpora_are_found_again(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make().setup("fit")
    assert capsys.readouterr().err.count("encoded") == 3
    make(sampling=Mixture({"greek": 1, "numbers": 9}, Packing())).setup("fit")
    assert "encoded" not in capsys.readouterr().err


def test_a_corpus_that_is_too_short_is_named(make: Make, tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("tiny")
    with pytest.raises(DataError, match=r"train_files\.numbers: 5 tokens, fewer than one sequence of 16"):
        make().setup("fit")


def test_all_corpora_are_too_short_for_a_batch(make: Make) -> None:
    with pytest.raises(DataError, match=r"train_files \(2 corpora\): 50 sequences of 16 tokens, fewer"):
        make(batch_size=500).setup("fit")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sampling": Packing()}, "train_files names 2 corpora (greek, numbers)"),
        ({"sampling": Mixture({"greek": 1})}, "weights names greek"),
        ({"train_files": "a.txt"}, "files without a name"),
        ({"train_files": {}}, "train_files={}"),
        ({"train_files": {" ": "a.txt"}}, "the name of a corpus is empty"),
        ({"train_files": {False: "a.txt", "en": "b.txt"}}, "put the name in quotes"),
        ({"train_files": {7: "a.txt"}}, "put the name in quotes"),
        ({"validation_files": None}, "validation_fraction=0.05"),
        ({"canaries": CanaryInjection()}, "canaries"),
        ({"sampling": SequenceLengthWarmup(5)}, "start_length=5"),
    ],
)
def test_what_cannot_work_is_refused_before_any_text_is_read(
    make: Make, tmp_path: Path, options: dict[str, object], named: str
) -> None:
    (tmp_path / "a.txt").unlink()
    with pytest.raises(ConfigError) as caught:
        make(**options)
    assert named in str(caught.value)
    assert caught.value.remedy


def test_no_validation_at_all(make: Make) -> None:
    data = make(validation_files=None, validation_fraction=0)
    data.setup("fit")
    assert data.val_dataloader() == []
