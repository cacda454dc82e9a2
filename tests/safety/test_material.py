"""The material of a run is what it was really trained on, token for token, however much there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from insight.data import ByteTokenizerConfig, LanguageModelingDataModule, read_corpus
from insight.data.canaries import CanaryInjection
from insight.safety import material as run_material
from insight.safety.material import material_of


def data_of(folder: Path, train: str, **options: object) -> LanguageModelingDataModule:
    data = LanguageModelingDataModule(
        train,
        tokenizer=ByteTokenizerConfig(),
        sequence_length=16,
        batch_size=2,
        cache_dir=str(folder / "cache"),
        **options,  # type: ignore[arg-type]
    )
    data.setup("fit")
    return data


@pytest.mark.slow
def test_much_text_is_sampled_evenly(tmp_path: Path) -> None:
    data = data_of(tmp_path, "corpus:austen-persuasion", test_files="corpus:austen-northangerabbey")
    material = material_of(data)
    trained, unseen = read_corpus("austen-persuasion"), read_corpus("austen-northangerabbey")
    assert 200 <= len(material.training_texts) <= 300
    assert sum(map(len, material.training_texts)) > 200_000
    places = [trained.find(text) for text in material.training_texts]
    assert min(places) == 0
    assert places == sorted(places)
    assert max(places) > 0.9 * len(trained) * 0.95  # a twentieth is set aside for validation
    assert all(text in unseen for text in material.unseen_texts)
    assert material.secrets == ()


def test_documents_stay_apart_and_canaries_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [f"Document {index} says the same as every other one." for index in range(60)]
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    injection = CanaryInjection(num_canaries=3, repetitions=2)
    data = data_of(tmp_path, str(path), validation_fraction=0.2, canaries=injection)
    material = material_of(data)
    sentences = {canary.sentence for canary in injection.canaries()}
    assert set(material.training_texts) < set(documents) | sentences
    assert sentences < set(material.training_texts)
    # Without test files the control is what was set aside for validation.
    assert set(material.unseen_texts) < set(documents)
    assert not set(material.unseen_texts) & set(material.training_texts)
    assert [secret.secret for secret in material.secrets] == [
        canary.secret for canary in injection.canaries()
    ]
    monkeypatch.setattr(run_material, "_STRETCH_TOKENS", 100)
    monkeypatch.setattr(run_material, "_NUM_STRETCHES", 5)
    pieces = material_of(data).training_texts
    assert 5 <= len(pieces) < 30
    assert all(any(piece in text for text in [*documents, *sentences]) for piece in pieces)


def test_without_other_text_there_is_no_control(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("Some text to learn from. " * 40, encoding="utf-8")
    data = data_of(tmp_path, str(tmp_path / "train.txt"), validation_fraction=0)
    material = material_of(data)
    assert material.training_texts == ("Some text to learn from. " * 40,)
    assert material.unseen_texts == ()
