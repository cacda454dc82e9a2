"""``insight tokenizer clean``: what it writes, prints and refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command_line import run_insight

import insight
from insight.api.clean import pair_filters
from insight.data.sources.parallel import expand_parallel
from insight.runtime.errors import DataError, OutputError

MIXED = [
    {"en": "A  house.", "es": "Una casa."},
    {"en": "Two\tlines\nof text", "es": "Dos líneas"},
    {"en": "A  house.", "es": "Una casa."},
    {"en": "Madrid", "es": "Madrid"},
    {"en": " ", "es": "vacío"},
    {"en": "one\u2028line", "es": "una\u0085línea"},
]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    file = tmp_path / "mixed.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in MIXED), encoding="utf-8")
    return file


FIELDS = ["--source_field", "en", "--target_field", "es"]
KEPT = [("A  house.", "Una casa."), ("Two lines of text", "Dos líneas"), ("one\u2028line", "una\u0085línea")]


def test_a_table_is_written_and_read_again(mixed: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "clean.tsv"
    done = run_insight("tokenizer", "clean", str(mixed), *FIELDS, "--output", str(output))
    assert done.code == 0, done.err
    told = {line.rpartition(" ")[0].strip(): line.split()[-1] for line in done.out.splitlines() if line}
    expected = {
        "pairs read": "6",
        "duplicates": "-1",
        "with identical sides": "-1",
        "with an empty side": "-1",
    }
    assert told.items() >= {**expected, "pairs written": "3"}.items()
    assert "1 sentences had tabs or line breaks" in done.out
    with open(output, encoding="utf-8", newline="\n") as file:
        rows = list(csv.reader((line for line in file), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows[0] == ["en", "es"]
    (source,) = expand_parallel(str(output), "en", "es", "files")
    assert list(source.pairs()) == KEPT


def test_aligned_files_are_written_and_cleaned_again(mixed: Path, tmp_path: Path) -> None:
    outputs = [str(tmp_path / "clean.en"), str(tmp_path / "clean.es")]
    named = [part for output in outputs for part in ("--output", output)]
    done = run_insight("tokenizer", "clean", str(mixed), *FIELDS, *named, "--json", "--keep-identical")
    cleaned = json.loads(done.out)
    assert cleaned["files"] == outputs
    assert (cleaned["num_read"], cleaned["num_kept"], cleaned["num_changed"]) == (6, 4, 1)
    assert cleaned["dropped"] == {"duplicates": 1, "with an empty side": 1}
    again = tmp_path / "again.tsv"
    options = ["--source", outputs[0], "--target", outputs[1], "--output", str(again)]
    assert run_insight("tokenizer", "clean", *options).code == 0
    (source,) = expand_parallel(str(again), "source", "target", "files")
    assert list(source.pairs()) == [(en.replace("\t", " "), es) for en, es in KEPT]


def test_the_function_is_exported(mixed: Path, tmp_path: Path) -> None:
    output = [str(tmp_path / "clean.tsv")]
    filters = pair_filters(max_words=1, keep_identical=True)
    cleaned = insight.clean_pairs(output, [str(mixed)], source_field="en", target_field="es", filters=filters)
    assert cleaned.num_kept == 1
    assert Path(cleaned.files[0]).read_text(encoding="utf-8") == "en\tes\nMadrid\tMadrid\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mixed.jsonl", "--output", "x.txt"], "output=x.txt: one file for both sides is a .tsv: use x.tsv"),
        (["mixed.jsonl", "--output", "x", "--output", "x"], "neither one file nor two different ones"),
        (["mixed.jsonl", "--output", "old.tsv"], "old.tsv"),
        (["mixd.jsonl", "--output", "x.tsv"], "did you mean mixed.jsonl?"),
        (["--output", "x.tsv"], "FILES is not given"),
        (["--source", "a.en", "--output", "x.tsv"], "--target is not given"),
        (["mixed.jsonl", "--source", "a.en", "--output", "x.tsv"], "give one of the two"),
        (["mixed.jsonl", "--output", "x.tsv", "--source_field", "eng"], "source_field='en'?"),
        (["--source", "a.en", "--target", "b.es", "--output", "x.tsv"], "line 2 has no translation"),
        (["mixed.jsonl", "--output", "x.tsv", *FIELDS, "--max_length_ratio", "0.1"], "max_length_ratio=0.1"),
        (["mixed.jsonl", "--output", "x.tsv", *FIELDS, "--source_script", "latn"], "did you mean 'LATIN'?"),
        (["mixed.jsonl", "--output", "x.tsv", *FIELDS, "--source_script", "THAI"], "0 of 6 pairs are kept"),
        (["mixed.jsonl", "--output", "x.tsv", "--invalid_text", "skipp"], "did you mean 'skip'?"),
        (["mixed.jsonl", "--output", "x.tsv", "--max_word", "9"], "did you mean '--max_words'?"),
    ],
)
def test_one_line_and_nothing_written(
    mixed: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(mixed.parent)
    Path("a.en").write_text("one\n")
    Path("b.es").write_text("uno\ndos\n")
    Path("old.tsv").write_text("kept")
    before = sorted(mixed.parent.iterdir())
    done = run_insight("tokenizer", "clean", *arguments)
    assert done.code == 2
    assert said in done.error_line
    assert sorted(mixed.parent.iterdir()) == before
    assert Path("old.tsv").read_text() == "kept"


def test_an_error_at_the_end_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("one\n" * 20_000)
    (tmp_path / "a.es").write_text("uno\n" * 19_999)
    outputs = [str(tmp_path / "clean.en"), str(tmp_path / "clean.es")]
    with pytest.raises(DataError):
        insight.clean_pairs(outputs, source=[str(tmp_path / "a.en")], target=[str(tmp_path / "a.es")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.en", "a.es"]
    with pytest.raises(OutputError):
        insight.clean_pairs([str(tmp_path / "a.en" / "x.tsv")], ["corpus:kjv-rv1909-test"])
