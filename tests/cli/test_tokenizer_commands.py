"""``insight tokenizer`` train, inspect and prune: what they print and write, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Outcome, run_insight

from insight.data import BPETokenizer, WordTokenizer, load_tokenizer, read_corpus

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two texts, two BPE tokenizers and one of words."""
    folder = tmp_path_factory.mktemp("tokenizers")
    (folder / "emma.txt").write_text(read_corpus("austen-emma")[:40_000], encoding="utf-8")
    (folder / "hostile.txt").write_text(f"日本 {HOSTILE} " * 40, encoding="utf-8")
    for name, *options in (
        ("small.json", "--vocabulary_size", "300"),
        ("large.json", "--vocabulary_size", "700", "--pre_tokenizer", "gpt4", "--special_token", "<|user|>"),
        ("words.json", "--kind", "word", "--vocabulary_size", "200", "--normalization", "lowercase"),
    ):
        outcome = run_insight(
            "tokenizer", "train", str(folder / "emma.txt"), "--output", str(folder / name), *options
        )
        assert outcome.code == 0, outcome.err
    return folder


def test_train_kinds(folder: Path) -> None:
    large, words = (load_tokenizer(folder / name) for name in ("large.json", "words.json"))
    assert isinstance(large, BPETokenizer)
    assert large.special_tokens == {"<|endoftext|>": 0, "<|user|>": 1}
    assert isinstance(words, WordTokenizer)
    assert words.vocabulary_size == 200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kind", "word", "--pre_tokenizer", "gpt2"], "--pre_tokenizer has no meaning for --kind word"),
        (["--kind", "word", "--normalization", "nfc"], "normalization=nfc: words cannot be"),
        (["--kind", "wrod"], "did you mean 'word'?"),
        (["--pre_tokenizer", "gpt3"], "did you mean 'gpt4'?"),
    ],
)
def test_train_refuses(folder: Path, options: list[str], said: str) -> None:
    outcome = run_insight(
        "tokenizer", "train", str(folder / "emma.txt"), "--output", str(folder / "x"), *options
    )
    assert outcome.code == 2
    assert said in outcome.error_line
    assert not (folder / "x").exists()


def inspect(folder: Path, *arguments: str) -> Outcome:
    return run_insight("tokenizer", "inspect", "--tokenizer", str(folder / "small.json"), *arguments)


def test_inspect_alone(folder: Path) -> None:
    outcome = inspect(folder, "--json")
    facts = json.loads(outcome.out)
    assert facts["kind"] == "BPETokenizer"
    assert facts["vocabulary_size"] == 300
    assert len(facts["longest_tokens"]) == 10
    assert "bytes_per_token" not in facts


def test_inspect_counts(folder: Path) -> None:
    text = (folder / "emma.txt").read_text(encoding="utf-8")
    tokenizer = load_tokenizer(folder / "small.json")
    files = [str(folder / name) for name in ("emma.txt", "hostile.txt")]
    facts = json.loads(inspect(folder, *files, "--json", "--rare_below", "5").out)
    assert [file["name"] for file in facts["files"]] == files
    assert facts["files"][0]["tokens"] == len(tokenizer.encode(text))
    assert facts["files"][0]["bytes_per_token"] == len(text.encode()) / len(tokenizer.encode(text))
    assert facts["bytes"] == sum(file["bytes"] for file in facts["files"])
    assert facts["files"][1]["fragment_share"] > 0.1 > facts["files"][0]["fragment_share"]
    assert facts["round_trip"]["lost"] == 0
    assert facts["unused_tokens"]["count"] > 100  # bytes that no text has
    plain = inspect(folder, *files)
    assert "bytes per token" in plain.out
    assert "0 of 2 texts changed" in plain.out


def test_compare_and_report(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "report"
    files = [str(folder / name) for name in ("emma.txt", "hostile.txt")]
    compare = ("--compare", str(folder / "large.json"), "--output", str(output))
    outcome = inspect(folder, *files, *compare)
    assert outcome.code == 0, outcome.err
    assert "the second needs -" in outcome.out
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    first, second = summary["tokenizers"]
    difference = summary["comparison"]["tokens_per_byte_difference"]
    assert difference["value"] == pytest.approx(
        second["tokens"] / second["bytes"] - first["tokens"] / first["bytes"]
    )
    assert difference["low"] <= difference["value"] <= difference["high"]
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "Bytes per token" in page
    assert "paired bootstrap" in page
    assert "hostile.txt" in page
    assert sorted(path.name for path in output.iterdir()) == ["report.html", "summary.json"]
    words = inspect(folder, files[0], "--compare", str(folder / "words.json"), "--json")
    described = json.loads(words.out)["tokenizers"][1]
    assert not described["is_lossless"]
    assert described["coverage"] < 1
    assert described["round_trip"]["lost"] == 1


def test_text_and_tokens_are_escaped(folder: Path, tmp_path: Path) -> None:
    train = ("tokenizer", "train", str(folder / "hostile.txt"), "--kind", "word", "--min_frequency", "1")
    tokenizer = tmp_path / f"{HOSTILE.replace('/', '')}.json"
    assert run_insight(*train, "--output", str(tokenizer)).code == 0
    output = tmp_path / "report"
    arguments = ("tokenizer", "inspect", "--tokenizer", str(tokenizer), str(folder / "hostile.txt"))
    assert run_insight(*arguments, "--output", str(output)).code == 0
    assert "<script>alert" not in (output / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--compare", "other.json"], "compare=other.json: needs text to measure on"),
        (["--output", "here"], "output=here: needs text to measure on"),
        (["corpus:austen-emma", "--rare_below", "0"], "rare_below=0: must be at least 1"),
        (["corpus:austen-emma", "--output", "."], "exists already"),
    ],
)
def test_inspect_refuses(folder: Path, arguments: list[str], said: str) -> None:
    outcome = inspect(folder, *arguments)
    assert outcome.code == 2
    assert said in outcome.error_line


def prune(folder: Path, *arguments: str) -> Outcome:
    large = str(folder / "large.json")
    return run_insight("tokenizer", "prune", "--tokenizer", large, str(folder / "emma.txt"), *arguments)


def test_prune_to_a_size(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "pruned"
    outcome = prune(folder, "--vocabulary_size", "500", "--output", str(output))
    assert outcome.code == 0, outcome.err
    written = next(line for line in outcome.out.splitlines() if "<- written" in line)
    assert written.split()[0] == "500"
    before, after = load_tokenizer(folder / "large.json"), load_tokenizer(output)
    assert after.vocabulary_size == 500
    table = json.loads((output / "old_to_new.json").read_text(encoding="ascii"))
    assert len(table) == 700
    kept = [old for old, new in enumerate(table) if new is not None]
    assert [table[old] for old in kept] == list(range(500))
    assert [after.token_bytes(table[old]) for old in kept] == [before.token_bytes(old) for old in kept]
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "700 tokens pruned to 500" in page
    assert "chart-pruning" in page
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    chosen = next(size for size in summary["sizes"] if size["is_chosen"])
    text = (folder / "emma.txt").read_text(encoding="utf-8")
    assert chosen["tokens"] == len(after.encode(text))
    assert chosen["loss"] == len(after.encode(text)) / len(before.encode(text)) - 1


def test_prune_to_a_loss(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "pruned"
    summary = json.loads(prune(folder, "--max_loss", "0.05", "--output", str(output), "--json").out)
    chosen = next(size for size in summary["sizes"] if size["is_chosen"])
    assert 0 < chosen["loss"] <= 0.05
    assert chosen["vocabulary_size"] == load_tokenizer(output).vocabulary_size < 700


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "o"], "--vocabulary_size --max_loss is required"),
        (["--vocabulary_size", "9", "--output", "o"], "vocabulary_size=9: the tokenizer has 700 tokens"),
        (["--max_loss", "-1", "--output", "o"], "max_loss=-1.0: must not be negative"),
        (["--max_loss", "0", "--output", "."], "exists already"),
        (["--max_loss", "0", "--output", "o", "--checkpoint", "none"], "does not exist"),
    ],
)
def test_prune_refuses(
    folder: Path, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = prune(folder, *arguments)
    assert outcome.code == 2
    assert said in outcome.error_line
    assert not list(tmp_path.iterdir())


def test_prune_a_run(finished_run: Path, tmp_path: Path, insight: Callable[..., Outcome]) -> None:
    """A byte tokenizer has nothing to prune; nothing is left behind."""
    outcome = insight(
        "tokenizer", "prune", "--tokenizer", str(finished_run), "train.txt", "--max_loss", "0",
        "--checkpoint", str(finished_run), "--output", "pruned",
    )  # fmt: skip
    assert outcome.code == 2
    assert "has no merges" in outcome.error_line
    assert not Path("pruned").exists()


@pytest.mark.slow
def test_inspect_and_prune_import_no_torch(folder: Path, tmp_path: Path) -> None:
    small, text = str(folder / "small.json"), str(folder / "emma.txt")
    inspect = ["tokenizer", "inspect", "--tokenizer", small, text, "--output", str(tmp_path / "a")]
    prune = [
        "tokenizer", "prune", "--tokenizer", small, text, "--max_loss", "0", "--output", str(tmp_path / "b")
    ]  # fmt: skip
    script = (
        "import sys\nfrom insight.cli.main import main\n"
        f"code = main({inspect!r}) or main({prune!r})\n"
        "sys.exit(code or ('imported torch' if 'torch' in sys.modules else 0))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_pruned_model_of_a_run_is_used(
    workplace: Path, insight: Callable[..., Outcome], tmp_path: Path
) -> None:
    """From a trained run to a smaller model that validates and writes."""
    bpe = ("--data.tokenizer", "BPETokenizerConfig", "--data.tokenizer.vocabulary_size", "280")
    assert insight("fit", "--config", "tiny.yaml", *bpe).code == 0
    run = "runs/tiny/1"
    outcome = insight(
        "tokenizer", "prune", "--tokenizer", run, "validation.txt", "--vocabulary_size", "270",
        "--checkpoint", run, "--output", "pruned",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    written = insight("generate", "--checkpoint", "pruned/model.ckpt", "--max_new_tokens", "3", "It is")
    assert written.code == 0, written.err
    measured = insight("validate", "--checkpoint", "pruned/model.ckpt", "--config", f"{run}/config.yaml")
    assert measured.code == 0, measured.err
    assert "validation/bits_per_byte" in measured.out
