"""``insight fit`` on one's own parallel text: what it says about it, and what it refuses in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import Outcome, run_insight
from tiny_translation import CONFIG, WORDS

ENGLISH = [
    "the house by the river",
    "they went out into the night",
    "what have you done with it",
    "a white horse",
]
SPANISH = ["la casa junto al río", "salieron fuera a la noche", "qué has hecho con eso", "un caballo blanco"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with aligned files of 120 sentences and a configuration of three steps."""
    monkeypatch.chdir(tmp_path)
    numbers = list(WORDS)
    for name, lines, words in (("a.en", ENGLISH, numbers), ("a.es", SPANISH, list(WORDS.values()))):
        text = [f"{lines[number % 4]} {words[number % 6]} {number}" for number in range(120)]
        (tmp_path / name).write_text("\n".join(text) + "\n", encoding="utf-8")
    text = CONFIG.replace("DIRECTIONS", "forward").replace("STEPS", "3")
    text = text.replace("FOLDER/pairs.tsv", "{source: a.en, target: a.es}")
    text = text.replace("_length: 24", "_length: 64")
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def fit(*options: str) -> Outcome:
    return run_insight("fit", "--config", "own.yaml", *options)


@pytest.mark.slow
def test_own_aligned_files_are_trained_on_and_a_part_is_set_aside(folder: Path) -> None:
    (folder / "swapped.tsv").write_text(
        "en\tes\n" + "".join(f"{es}\t{en}\n" for en, es in zip(ENGLISH, SPANISH, strict=True)),
        encoding="utf-8",
    )
    done = fit(
        "--data.test_files=swapped.tsv", "--data.validation_fraction=0.1", "--data.max_test_overlap=0.5"
    )
    assert done.code == 0, done.err
    assert "train: 108 of 120 pairs are kept; left out: 12 set aside for validation" in done.err
    assert "no validation_files, so 10% of the training pairs, at most 500, are set aside: " in done.err
    assert "warning: the languages of swapped.tsv seem exchanged" in done.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data.max_source_length=8", "--data.max_target_length=8"], "119 longer than max_source_length"),
        (["--data.train_files={source: a.en, target: short.es}"], "line 3 has no translation"),
    ],
)
def test_one_line_and_no_run(folder: Path, options: list[str], said: str) -> None:
    (folder / "short.es").write_text("uno\ndos\n")
    done = fit(*options)
    assert done.code == 2
    assert said in done.error_line
    assert not os.path.exists("runs")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fit", "check"])
def test_work_that_only_decoders_allow_is_refused_before_training(folder: Path, command: str) -> None:
    callbacks = "--trainer.callbacks=[{class_path: QuantizeAtEnd}]"
    done = run_insight(command, "--config", "own.yaml", callbacks)
    assert done.code == 2, done.err
    assert "trainer.callbacks=QuantizeAtEnd: works on models that continue text" in done.out + done.err
    assert not list(folder.glob("runs/*"))


def test_pairs_that_all_recur_name_the_option(folder: Path) -> None:
    (folder / "same.en").write_text("one two three four five six\n" * 9, encoding="utf-8")
    (folder / "same.es").write_text(
        "".join(f"uno dos tres cuatro cinco {n}\n" for n in range(9)), encoding="utf-8"
    )
    same = "--data.train_files={source: same.en, target: same.es}"
    done = fit(
        same, "--data.validation_files=null", "--data.validation_fraction=0.1", "--data.max_test_overlap=0.1"
    )
    assert done.code == 2
    assert "set max_test_overlap to null" in done.err
