"""Wrong names of parallel files and mismatched classes are told before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from insight.api.config_files import given_config
from insight.api.early_checks import early_mistakes

CONFIG = ["--config", "translation"]


def mistakes(*arguments: str) -> list[str]:
    given = [*CONFIG, *arguments]
    return [str(error) for error in early_mistakes("fit", given_config(given)[0], given)]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("english.txt", "spanish.txt"):
        (tmp_path / name).write_text("one\n")
    (tmp_path / "both.tsv").write_text("en\tes\none\tuno\n")
    return tmp_path


def test_right_names_are_no_mistake(files: Path) -> None:
    assert mistakes() == []
    assert mistakes("--data.train_files", "both.tsv") == []
    assert mistakes("--data.train_files", "[both.tsv]", "--data.test_files=null") == []
    assert mistakes("--data.train_files", "{source: english.txt, target: spanish.txt}") == []


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("train_files", "bth.tsv", ("data.train_files=bth.tsv", "did you mean both.tsv?")),
        (
            "validation_files",
            "[both.tsv, bot.tsv]",
            ("data.validation_files=bot.tsv", "did you mean both.tsv?"),
        ),
        (
            "train_files",
            "{source: englsh.txt, target: spanish.txt}",
            ("train_files.source", "did you mean english.txt?"),
        ),
        (
            "train_files",
            "{source: english.txt, traget: spanish.txt}",
            ("data.train_files=traget", "did you mean 'target'?"),
        ),
        ("test_files", "{source: english.txt}", ("names no target file",)),
        ("test_files", "english.txt", ("does not hold both sides", "as source and target")),
        ("test_files", "corpus:kjv-rv1909-tset", ("did you mean corpus:kjv-rv1909-test?",)),
    ],
)
def test_a_wrong_name_is_one_mistake_with_its_remedy(
    files: Path, option: str, value: str, named: tuple[str, ...]
) -> None:
    (mistake,) = mistakes(f"--data.init_args.{option}", value)
    assert all(part in mistake for part in named), mistake
    assert "\n" not in mistake


def test_own_text_leaves_the_held_out_verses_out(files: Path) -> None:
    for value in ("both.tsv", "{source: english.txt, target: spanish.txt}"):
        config, said = given_config([*CONFIG, "--data.train_files", value])
        options = config["data"]["init_args"]
        assert options["validation_files"] is options["test_files"] is None
        assert len(said) == 2
        assert "a part of it is set aside instead" in said[0]
    (files / "mine.yaml").write_text("data: {train_files: both.tsv, test_files: both.tsv}\n")
    config, said = given_config([*CONFIG, "--config", "mine.yaml"])
    assert config["data"]["init_args"]["test_files"] == "both.tsv"
    assert len(said) == 1


@pytest.mark.parametrize(
    ("data", "model"),
    [
        ("TranslationDataModule", "LanguageModelingModule"),
        ("LanguageModelingDataModule", "TranslationModule"),
    ],
)
def test_data_of_one_task_and_a_model_of_the_other(files: Path, data: str, model: str) -> None:
    fitting = {"TranslationDataModule": "TranslationModule"}.get(data, "LanguageModelingModule")

    def told(config: dict[str, dict[str, str]]) -> list[str]:
        (files / "mixed.yaml").write_text(yaml.safe_dump(config))
        given = ["--config", str(files / "mixed.yaml")]
        return [str(error) for error in early_mistakes("fit", given_config(given)[0], given)]

    both = {"data": {"class_path": data}, "model": {"class_path": model}}
    (mistake,) = told(both)
    assert mistake.startswith(f"data.class_path={data}: makes no batches for model.class_path={model}: ")
    assert f"use model.class_path: {fitting}, or data.class_path: " in mistake
    # A group that is left out has its default class.
    group = "data" if data == "TranslationDataModule" else "model"
    assert told({group: both[group]}) == [mistake]
    assert told({"data": {"class_path": data}, "model": {"class_path": fitting}}) == []


def test_a_wrong_name_is_told_without_torch(files: Path) -> None:
    code = (
        "import sys; from insight.cli.main import main; code = main(sys.argv[1:]); "
        "sys.exit(9 if {'torch', 'lightning', 'pyarrow'} & set(sys.modules) else code)"
    )
    options = ["fit", *CONFIG, "--data.train_files", "bth.tsv"]
    done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "did you mean both.tsv?" in done.stderr
