"""``validate``, ``test`` and ``predict``: options that would mean nothing are refused, and JSON is JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Outcome

from insight.cli.arguments import take_flag
from insight.runtime.errors import nearest
from insight.runtime.json_files import print_json

Insight = Callable[..., Outcome]


def test_the_tokenizer_of_a_checkpoint_cannot_be_changed(insight: Insight, finished_run: Path) -> None:
    for command in ("validate", "test", "predict"):
        options = ("--checkpoint", str(finished_run), "--data.tokenizer", "ByteTokenizerConfig")
        outcome = insight(command, *options)
        assert outcome.code == 2
        assert "--data.tokenizer" in outcome.error_line


def test_predict_names_file_and_record(insight: Insight, workplace: Path, finished_run: Path) -> None:
    texts = ("one two", "", "three four")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (workplace / "mine.jsonl").write_text(lines, encoding="utf-8")
    outcome = insight("predict", "--checkpoint", str(finished_run), "--data.predict_files", "mine.jsonl")
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in outcome.out.splitlines() if line.startswith("{")]
    found = [(row["document"], row["record"], row["bytes"]) for row in rows]
    assert found == [(0, 1, 7), (1, 2, 0), (2, 3, 10)]
    assert {row["file"] for row in rows} == {"mine.jsonl"}
    assert rows[1]["loss"] is None


def test_json_has_no_bare_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"perplexity": math.inf, "loss": math.nan, "ok": 1.5})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "perplexity": None,
        "loss": None,
        "ok": 1.5,
    }


@pytest.mark.parametrize(
    ("arguments", "rest", "is_on"),
    [
        (["--json"], [], True),
        (["--json", "true", "--x"], ["--x"], True),
        (["--json=false", "y"], ["y"], False),
        (["--jsonx", "--y"], ["--jsonx", "--y"], False),
        (["--json", "--y", "true"], ["--y", "true"], True),
    ],
)
def test_json_is_a_flag(arguments: list[str], rest: list[str], is_on: bool) -> None:
    assert take_flag(arguments, "--json") == (rest, is_on)


@pytest.mark.parametrize(
    ("name", "said"),
    [("report", "report.html"), ("compare", "benchmark"), ("train", "fit")],
)
def test_names_that_are_no_commands(insight: Insight, name: str, said: str) -> None:
    assert said in insight(name).error_line


def test_the_nearest_name_is_another_one_and_case_counts_least() -> None:
    assert nearest("Adamw", ["Adam", "AdamW"]) == "AdamW"
    assert nearest("gone.txt", ["gone.txt", "gone2.txt"]) == "gone2.txt"
    assert nearest("gone.txt", ["gone.txt"]) is None
    assert nearest("ROPE", ["Rope", "Alibi"]) == "Rope"


def test_a_value_is_missing(insight: Insight) -> None:
    assert "--output: a value is missing" in insight("predict", "--output").error_line


@pytest.mark.slow
def test_a_run_whose_validation_part_was_set_aside_is_validated(insight: Insight) -> None:
    options = ("--data.validation_files=null", "--data.validation_fraction=0.2", "--trainer.max_steps=2")
    assert insight("fit", "--config", "tiny.yaml", *options).code == 0
    outcome = insight("validate", "--checkpoint", "runs/tiny/1", "--json")
    assert outcome.code == 0, outcome.err
    assert math.isfinite(json.loads(outcome.out)["validation/bits_per_byte"])
