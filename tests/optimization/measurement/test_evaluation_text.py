"""The text that models are compared on: found through their run, the same for every tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest

from insight.data import ByteTokenizerConfig
from insight.data.tokenizers import BPETokenizerConfig
from insight.optimization.measurement import EvaluationText
from insight.runtime.errors import DataError

TEXT = "Some text to measure on, with an é in it. " * 40


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with a checkpoint and an artefact that are only names here."""
    monkeypatch.setenv("INSIGHT_CACHE_DIR", str(tmp_path / "cache"))
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.txt").write_text(f"{split}. {TEXT}", encoding="utf-8")
    folder = tmp_path / "runs" / "tiny" / "1"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.ckpt").touch()
    (folder / "quantization").mkdir()
    return folder


def configure(run: Path, **options: object) -> None:
    root = run.parents[2]
    lines = [f"  {name}: {value}" for name, value in {"train_files": root / "train.txt", **options}.items()]
    (run / "config.yaml").write_text("data:\n" + "\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("place", ["checkpoints/best.ckpt", "quantization"])
def test_the_test_text_of_the_run(run: Path, place: str) -> None:
    root = run.parents[2]
    configure(run, validation_files=root / "validation.txt", test_files=root / "test.txt")
    text = EvaluationText.of_model(run / place)
    assert text.split == "test"
    store = text.encode(ByteTokenizerConfig().build(()))
    assert store.num_bytes == len(f"test. {TEXT}".encode())


def test_without_test_text_its_validation_text(run: Path) -> None:
    root = run.parents[2]
    configure(run, validation_files=root / "validation.txt", test_files="null")
    text = EvaluationText.of_model(run / "checkpoints" / "best.ckpt")
    assert text.split == "validation"
    assert text.encode(ByteTokenizerConfig().build(())).num_bytes == len(f"validation. {TEXT}".encode())


def test_or_the_part_of_the_training_text_that_was_set_aside(run: Path) -> None:
    configure(run, validation_fraction=0.25)
    text = EvaluationText.of_model(run / "checkpoints" / "best.ckpt")
    store = text.encode(ByteTokenizerConfig().build(()))
    assert 0 < store.num_bytes < 0.5 * len(TEXT.encode())


def test_every_tokenizer_gets_the_same_bytes(run: Path) -> None:
    text = EvaluationText.of_files([str(run.parents[2] / "test.txt")])
    tokenizers = [ByteTokenizerConfig().build(()), BPETokenizerConfig(vocabulary_size=270).build([TEXT])]
    first, second = (text.encode(tokenizer) for tokenizer in tokenizers)
    assert first.num_bytes == second.num_bytes
    assert first.num_tokens > second.num_tokens


@pytest.mark.parametrize("content", ["", "data: 3\n", "data: {train_files: null}\n", "data: [\n", "[]\n"])
def test_a_run_that_names_no_text(run: Path, content: str) -> None:
    (run / "config.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="--text"):
        EvaluationText.of_model(run / "checkpoints" / "best.ckpt")


def test_a_run_that_set_nothing_aside(run: Path) -> None:
    configure(run, validation_fraction=0)
    with pytest.raises(DataError, match="neither test_files nor validation_files"):
        EvaluationText.of_model(run / "checkpoints" / "best.ckpt")


def test_a_model_from_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lies in no run folder"):
        EvaluationText.of_model(tmp_path / "a.ckpt")


def test_files_are_found_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(DataError) as mistake:
        EvaluationText.of_files(["missing.txt"])
    assert (mistake.value.option, mistake.value.value) == ("--text", "missing.txt")
