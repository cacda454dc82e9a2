"""The data module from files to batches: splits, cache, messages, bad input."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from insight.data import (
    IGNORED_TARGET,
    BPETokenizerConfig,
    ByteTokenizerConfig,
    CanaryInjection,
    DaskCluster,
    LanguageModelingDataModule,
    LocalProcesses,
    Mixture,
    SequenceLengthWarmup,
    Source,
    read_corpus,
)
from insight.data.loaders import BatchLoader
from insight.runtime.errors import CheckpointError, ConfigError, DataError, OutputError, TokenizerError

Make = Callable[..., LanguageModelingDataModule]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A data module over a small text, with bytes as tokens."""
    (tmp_path / "text.txt").write_text(read_corpus("austen-emma")[:20_000])

    def build(**options: object) -> LanguageModelingDataModule:
        settings: dict[str, object] = {
            "train_files": str(tmp_path / "text.txt"),
            "tokenizer": ByteTokenizerConfig(),
            "cache_dir": str(tmp_path / "cache"),
            "sequence_length": 16,
            "batch_size": 4,
        }
        return LanguageModelingDataModule(**(settings | options))  # type: ignore[arg-type]

    return build


def ready(data: LanguageModelingDataModule) -> LanguageModelingDataModule:
    data.prepare_data()
    data.setup()
    return data


def bytes_of(data: LanguageModelingDataModule, loader: BatchLoader) -> int:
    lengths = torch.from_numpy(data.tokenizer.token_byte_lengths())
    targets = torch.cat([batch.targets.flatten() for batch in loader])
    return int(lengths[targets[targets != IGNORED_TARGET]].sum())


def test_novels_from_text_to_batches(tmp_path: Path) -> None:
    data = LanguageModelingDataModule(
        ["corpus:austen-persuasion"],
        ["corpus:austen-northangerabbey"],
        ["corpus:austen-northangerabbey"],
        tokenizer=BPETokenizerConfig(512),
        sequence_length=128,
        cache_dir=str(tmp_path),
    )
    ready(data)
    assert data.vocabulary_size == 512
    loader = data.train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader)
    assert all(batch.input_ids.shape == (16, 128) for batch in batches)
    assert "Anne" in data.tokenizer.decode(torch.cat([b.input_ids.flatten() for b in batches]).numpy())
    for held_out in (data.val_dataloader(), data.test_dataloader()):
        assert isinstance(held_out, BatchLoader)
        assert bytes_of(data, held_out) == 433_411
    summary = data.summary()
    assert summary["splits"]["train"]["bytes"] == 466_854
    assert summary["splits"]["train"]["files"] == ["corpus:austen-persuasion"]
    assert summary["tokenizer"]["vocabulary_size"] == 512


def test_second_start_is_quick_and_reads_no_text(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A file whose status has just changed is hashed again; nobody can set that time back.
    monkeypatch.setattr("insight.data.sources.content_hashes._DOUBT_NANOSECONDS", 0)
    first = ready(make(tokenizer=BPETokenizerConfig(300)))
    capsys.readouterr()
    monkeypatch.setattr("insight.data.sources.formats.Source.records", None)
    monkeypatch.setattr("insight.data.sources.content_hashes.file_hash", None)
    started = time.perf_counter()
    second = ready(make(tokenizer=BPETokenizerConfig(300)))
    assert time.perf_counter() - started < 1
    assert second.tokenizer.fingerprint() == first.tokenizer.fingerprint()
    said = capsys.readouterr().err
    assert "trained" not in said
    assert "encoded" not in said
    assert next(iter(second.train_dataloader())).input_ids.equal(
        next(iter(first.train_dataloader())).input_ids
    )


def test_renamed_text_is_found_and_reported_by_its_new_name(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ready(make())
    (tmp_path / "text.txt").rename(tmp_path / "other.txt")
    capsys.readouterr()
    data = ready(make(train_files=str(tmp_path / "other.txt")))
    assert "encoded" not in capsys.readouterr().err
    assert data.summary()["splits"]["train"]["files"] == [str(tmp_path / "other.txt")]


def test_same_bytes_read_another_way_are_other_text(make: Make, tmp_path: Path) -> None:
    line = '{"text": "only this counts, not the braces and names around it"}\n' * 40
    (tmp_path / "a.txt").write_text(line)
    (tmp_path / "a.jsonl").write_text(line)
    as_text = ready(make(train_files=str(tmp_path / "a.txt"), validation_fraction=0))
    as_json = ready(make(train_files=str(tmp_path / "a.jsonl"), validation_fraction=0))
    assert as_text.store("train").num_bytes > as_json.store("train").num_bytes


def test_validation_part_is_taken_and_said_once(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    data = ready(make())
    said = capsys.readouterr().err
    assert said.count("no validation_files: validating on the last 5% of the training text") == 1
    divisions = {split: about["division"] for split, about in data.summary()["splits"].items()}
    assert divisions["validation"] == "the last 5% of the training text, cut at a paragraph"
    assert divisions["train"] == f"all but {divisions['validation']}"
    total = data.store("train").num_bytes + data.store("validation").num_bytes
    assert total == 20_000
    held_out = data.val_dataloader()
    assert isinstance(held_out, BatchLoader)
    assert bytes_of(data, held_out) == data.store("validation").num_bytes
    # Said again by a warm start, which divides nothing.
    ready(make())
    assert "validating on the last 5%" in capsys.readouterr().err


def test_whole_documents_are_set_aside(make: Make, tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"doc{number:02d}.txt").write_text(f"text number {number}, with words. " * 20)
    data = ready(make(train_files=f"{tmp_path}/doc*.txt"))
    assert data.store("train").num_documents + data.store("validation").num_documents == 50
    trained = data.tokenizer.decode(data.store("train").tokens(0, data.store("train").num_tokens))
    held_out = data.store("validation")
    for index in range(held_out.num_documents):
        assert data.tokenizer.decode(held_out.document(index)) not in trained
    assert ready(make(train_files=f"{tmp_path}/doc*.txt", seed=1)).state_dict() != data.state_dict()


def test_tokenizer_learns_nothing_from_the_validation_part(make: Make, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("plain words here " * 300 + "\n\n" + "zyxzyx" * 50)
    data = ready(make(train_files=str(tmp_path / "t.txt"), tokenizer=BPETokenizerConfig(265)))
    assert not any(b"zyx" in data.tokenizer.token_bytes(index) for index in range(data.vocabulary_size))


def test_no_validation_at_all(make: Make) -> None:
    data = ready(make(validation_fraction=0))
    assert data.val_dataloader() == []
    assert data.store("train").num_bytes == 20_000


def test_setup_opens_what_the_stage_needs(make: Make, tmp_path: Path) -> None:
    data = make(test_files="corpus:austen-persuasion", train_files=str(tmp_path / "gone.txt"))
    data.setup("test")
    assert len(data.test_dataloader()) > 0
    with pytest.raises(DataError, match="call setup"):
        data.train_dataloader()
    with pytest.raises(DataError) as error:
        data.setup("fit")
    assert error.value.option == "train_files"


def test_missing_test_file_is_found_before_training(make: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        make(test_files=str(tmp_path / "gone.txt")).setup("fit")
    assert error.value.option == "test_files"
    assert not (tmp_path / "cache" / "stores").exists()


def test_split_without_files(make: Make) -> None:
    data = ready(make())
    for split, loader in (("test", data.test_dataloader), ("predict", data.predict_dataloader)):
        with pytest.raises(DataError) as caught:
            loader()
        assert caught.value.option == f"{split}_files"
        assert caught.value.remedy


def test_before_setup(make: Make) -> None:
    with pytest.raises(DataError, match="prepare_data"):
        _ = make().tokenizer
    with pytest.raises(DataError, match="setup"):
        make().train_dataloader()
    assert make().state_dict() == {}


def test_tokenizer_of_a_checkpoint(make: Make) -> None:
    trained = ready(make(tokenizer=BPETokenizerConfig(300))).tokenizer
    data = make(tokenizer=BPETokenizerConfig(10**6), test_files="corpus:austen-persuasion")
    data.use_tokenizer(trained)
    data.setup("test")
    assert data.vocabulary_size == 300
    with pytest.raises(ConfigError, match="after setup"):
        data.use_tokenizer(trained)


def test_duplicates_and_leaks_are_said(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "copy.txt").write_text((tmp_path / "text.txt").read_text())
    both = [str(tmp_path / "text.txt"), str(tmp_path / "copy.txt")]
    data = ready(make(train_files=both, validation_files=str(tmp_path / "copy.txt")))
    said = capsys.readouterr().err
    assert "copy.txt has the same content as" in said
    assert "is training text too" in said
    assert data.store("train").num_bytes == 20_000


WHOLE = ("sequence_length", "batch_size", "validation_batch_size", "num_workers", "seed")
REAL = ("validation_fraction", "cache_gigabytes")
NEVER = [math.nan, math.inf, -math.inf, True, 1e308, "3", [3]]


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value) for option in WHOLE for value in (*NEVER, 0.5, 10**30, -(10**30))]
    + [(option, value) for option in REAL for value in (*NEVER, -0.1, 10**30)]
    + [(option, 0) for option in ("sequence_length", "batch_size", "validation_batch_size")]
    + [
        (option, 10**9)
        for option in ("sequence_length", "batch_size", "validation_batch_size", "num_workers")
    ]
    + [("num_workers", -1), ("validation_fraction", 1.0)],
    ids=str,
)
def test_numbers_that_cannot_work(make: Make, option: str, value: object) -> None:
    """The option, its value and a remedy are told at once, before any text is read."""
    with pytest.raises(ConfigError) as caught:
        make(**{option: value}, train_files="no such file")
    assert (caught.value.option, caught.value.value) == (option, value)
    assert caught.value.remedy


def test_numbers_of_configurations_that_cannot_work() -> None:
    makers = [
        (lambda value: CanaryInjection(num_canaries=value), "num_canaries"),
        (lambda value: CanaryInjection(repetitions=value), "repetitions"),
        (lambda value: CanaryInjection(num_digits=value), "num_digits"),
        (lambda value: CanaryInjection(seed=value), "seed"),
        (lambda value: SequenceLengthWarmup(start_length=value), "start_length"),
        (lambda value: SequenceLengthWarmup(num_batches=value), "num_batches"),
        (lambda value: LocalProcesses(num_workers=value), "num_workers"),
        (lambda value: DaskCluster(num_workers=value), "num_workers"),
        (lambda value: DaskCluster(patience=value), "patience"),
        (lambda value: Mixture({"a": value}), "weights.a"),
    ]
    for make, option in makers:
        for value in (*NEVER, -(10**30), 10**30):
            with pytest.raises(ConfigError) as caught:
                make(value)
            assert caught.value.option == option
            assert caught.value.remedy


def test_the_number_of_documents_is_told_once(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(50):
        (tmp_path / f"doc{number:02d}.txt").write_text(f"text number {number}, with words. " * 20)
    data = make(train_files=f"{tmp_path}/doc*.txt")
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        state=SimpleNamespace(fn=None), distributed_sampler_kwargs=None, accumulate_grad_batches=1
    )
    for _ in range(2):
        data.setup("fit")
    said = capsys.readouterr().err
    counts = [data.store(split).num_documents for split in ("train", "validation")]
    assert sum(counts) == 50
    assert said.count(f"documents: train {counts[0]}, validation {counts[1]}") == 1
    assert f"{counts[0]} documents, " in said  # where the text was encoded


def test_each_record_of_a_split_has_a_place(make: Make, tmp_path: Path) -> None:
    """Records without text have no document, and the others keep their number in their file."""
    records = [{"text": "" if number in (3, 17, 20) else f"record {number}"} for number in range(50)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "b.txt").write_text("one document")
    files = [str(tmp_path / name) for name in ("a.jsonl", "b.txt")]
    data = make(predict_files=files)
    data.setup("predict")
    places = list(data.document_places("predict"))
    assert [place.record for place in places] == [*range(1, 51), 1]
    assert [index for index, place in enumerate(places) if place.is_empty] == [3, 17, 20]
    assert [place.file for place in places] == [files[0]] * 50 + [files[1]]
    store = data.store("predict")
    kept = [place for place in places if not place.is_empty]
    assert len(kept) == store.num_documents == 48
    texts = [data.tokenizer.decode(store.document(index)) for index in range(48)]
    assert texts == [f"record {place.record - 1}" for place in kept[:-1]] + ["one document"]


def test_text_shorter_than_a_sequence(make: Make, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("twelve bytes")
    with pytest.raises(DataError) as caught:
        make(train_files=str(tmp_path / "short.txt"), validation_fraction=0).setup("fit")
    assert f"train_files ({tmp_path}/short.txt): 13 tokens, fewer than one sequence of 16 + 1" in str(
        caught.value
    )
    assert caught.value.remedy == "give more text or use sequence_length=12 or less"


def test_text_shorter_than_a_batch(make: Make) -> None:
    with pytest.raises(DataError, match=r"fewer than one batch of 5000: .*use batch_size=\d+"):
        make(batch_size=5000).setup("fit")


def test_short_evaluation_text_is_one_padded_window(make: Make, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("twelve bytes")
    data = ready(make(test_files=str(tmp_path / "short.txt")))
    (batch,) = data.test_dataloader()
    assert batch.input_ids.shape == (1, 16)
    assert bytes_of(data, data.test_dataloader()) == 12


def test_vocabulary_too_large_for_the_text(make: Make) -> None:
    with pytest.raises(TokenizerError) as error:
        make(tokenizer=BPETokenizerConfig(9000)).setup("fit")
    assert (error.value.option, error.value.value) == ("data.tokenizer.vocabulary_size", 9000)


def test_cache_folder_that_cannot_be_written(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for tokenizer in (ByteTokenizerConfig(), BPETokenizerConfig(300)):
        with pytest.raises(OutputError, match="cache_dir="):
            make(cache_dir=str(tmp_path / "file"), tokenizer=tokenizer).setup("fit")


def test_cache_folder_from_the_environment(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSIGHT_CACHE_DIR", str(tmp_path / "elsewhere"))
    ready(make(cache_dir=None))
    assert (tmp_path / "elsewhere" / "stores").is_dir()


def test_damaged_cached_tokenizer_is_trained_again(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ready(make(tokenizer=BPETokenizerConfig(300)))
    (file,) = (tmp_path / "cache" / "tokenizers").glob("*.json")
    file.write_bytes(file.read_bytes().replace(b'"he"', b'"eh"', 1))
    second = ready(make(tokenizer=BPETokenizerConfig(300)))
    assert "is damaged; training it again" in capsys.readouterr().err
    assert second.tokenizer.fingerprint() == first.tokenizer.fingerprint()


def test_source_that_changes_while_it_is_read(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Source.records

    def read_and_change(self: Source, *rest: Any) -> Iterator[Any]:
        yield from read(self, *rest)
        self.path.write_text("something else entirely")

    monkeypatch.setattr(Source, "records", read_and_change)
    with pytest.raises(DataError, match="changed while it was read"):
        make(validation_fraction=0).setup("fit")
    assert not list((tmp_path / "cache" / "stores").glob("[0-9a-f]*[0-9a-f]"))


def test_cursor_moves_the_loader(make: Make) -> None:
    data = ready(make())
    loader = data.train_dataloader()
    whole = [batch.input_ids.tolist() for batch in loader]
    data.advance(3 * 4)
    assert [batch.input_ids.tolist() for batch in loader][: len(whole) - 3] == whole[3:]
    assert len(loader) == len(whole)
    state = data.state_dict()
    assert state["num_samples_consumed"] == 12
    other = make()
    other.load_state_dict(state)  # before or after setup
    other.setup("fit")
    assert next(iter(other.train_dataloader())).input_ids.tolist() == whole[3]
    with pytest.raises(ConfigError) as error:
        data.advance(0)
    assert (error.value.option, error.value.value) == ("num_samples_global", 0)


def test_state_of_something_else_is_refused(make: Make) -> None:
    data = ready(make())
    with pytest.raises(CheckpointError, match="sequence_length=16"):
        data.load_state_dict({"num_samples_consumed": 3, "fingerprint": "x"})
    with pytest.raises(CheckpointError):
        data.load_state_dict({"something": "else"})
