"""``insight tokenizer encode --files``, and texts with the names of their languages in train and inspect."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Outcome, run_insight

from insight.data import LanguageModelingDataModule, PretrainedTokenizerConfig, load_tokenizer, read_corpus


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of two languages and a tokenizer."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "en.txt").write_text(read_corpus("austen-emma")[:60_000], encoding="utf-8")
    (folder / "en2.txt").write_text(read_corpus("austen-emma")[60_000:90_000], encoding="utf-8")
    (folder / "ru.txt").write_text("Съешь же ещё этих мягких булок, да выпей чаю. " * 300, encoding="utf-8")
    outcome = run_insight(
        "tokenizer", "train", str(folder / "en.txt"), "--output", str(folder / "t.json"),
        "--vocabulary_size", "400",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    return folder


def encode(folder: Path, cache: Path, *options: str) -> Outcome:
    tokenizer = ("--tokenizer", str(folder / "t.json"))
    files = ("--files", str(folder / "en.txt"), str(folder / "ru.txt"))
    return run_insight("tokenizer", "encode", *tokenizer, *files, "--cache_dir", str(cache), *options)


def test_files_become_the_store_that_a_run_finds(folder: Path, tmp_path: Path) -> None:
    fraction = ("--validation_fraction", "0.1", "--seed", "4")
    outcome = encode(folder, tmp_path / "a", *fraction, "--json", "--executor", "in_process")
    assert outcome.code == 0, outcome.err
    stores = json.loads(outcome.out)["stores"]
    assert [store["split"] for store in stores] == ["train", "validation"]
    data = LanguageModelingDataModule(
        [str(folder / "en.txt"), str(folder / "ru.txt")],
        tokenizer=PretrainedTokenizerConfig(str(folder / "t.json")),
        validation_fraction=0.1,
        seed=4,
        sequence_length=16,
        cache_dir=str(tmp_path / "a"),
    )
    data.setup("fit")
    assert [str(data.store(split).path) for split in ("train", "validation")] == [
        store["path"] for store in stores
    ]
    assert data.store("train").num_tokens == stores[0]["tokens"]


@pytest.mark.slow
def test_executors_make_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    seen = set()
    for name, *options in (("a", "--executor", "in_process"), ("b", "--num_workers", "2"), ("c",)):
        outcome = encode(folder, tmp_path / name, *options)
        assert outcome.code == 0, outcome.err
        assert "2 documents" in outcome.out
        store = Path(outcome.out.split()[0])
        seen.add((store.name, *(path.read_bytes() for path in sorted(store.iterdir()))))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--executor", "in_process", "--scheduler", "tcp://a:1"], "--scheduler with --executor in_process"),
        (["--executor", "in_process", "--num_workers", "2"], "--num_workers with --executor in_process"),
        (["--executor", "dusk"], "did you mean 'dask'?"),
        (["--num_workers", "-1"], "num_workers=-1"),
        (["--scheduler", "tcp://a:1", "--num_workers", "2"], "leave out num_workers or scheduler"),
        (["--validation_fraction", "1"], "validation_fraction=1.0"),
        (["--invalid_text", "skipp"], "did you mean 'skip'?"),
    ],
)
def test_what_encode_refuses(folder: Path, tmp_path: Path, options: list[str], said: str) -> None:
    outcome = encode(folder, tmp_path / "cache", *options)
    assert outcome.code == 2
    assert said in outcome.error_line
    assert not (tmp_path / "cache").exists()


def test_options_of_files_mean_nothing_for_a_text(folder: Path) -> None:
    base = ("tokenizer", "encode", "--tokenizer", str(folder / "t.json"))
    outcome = run_insight(*base, "a text", "--executor", "dask")
    assert outcome.code == 2
    assert "--executor has no meaning for a text" in outcome.error_line
    outcome = run_insight(*base, "--files", str(folder / "en.txt"), "--", "a text")
    assert outcome.code == 2
    assert run_insight(*base, "the text").out.split() == [
        str(index) for index in load_tokenizer(folder / "t.json").encode("the text")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("action", ["train", "inspect", "prune"])
def test_bytes_that_are_not_text(folder: Path, tmp_path: Path, action: str) -> None:
    """Every action that reads files takes ``--invalid_text``."""
    damaged = tmp_path / "damaged.txt"
    damaged.write_bytes((folder / "en.txt").read_bytes() + b"caf\xe9")
    options = {
        "train": ["--vocabulary_size", "300", "--output", str(tmp_path / "t.json")],
        "inspect": ["--tokenizer", str(folder / "t.json")],
        "prune": ["--tokenizer", str(folder / "t.json"), "--max_loss", "0", "--output", str(tmp_path / "p")],
    }[action]
    refused = run_insight("tokenizer", action, str(damaged), *options)
    assert refused.code == 2
    assert "invalid_text" in refused.error_line
    assert not list(tmp_path.glob("[tp]*"))
    done = run_insight("tokenizer", action, str(damaged), *options, "--invalid_text", "replace")
    assert done.code == 0, done.err
    assert ("replaced by U+FFFD at 1 place" in done.err) == (action == "train")


def test_a_tokenizer_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "gone.json")
    for name, said in (
        ("link.json", "is a link that leads nowhere"),
        ("nowhere/t.json", "its folder"),
        ("../t.json", None),
    ):
        outcome = run_insight("tokenizer", "decode", "--tokenizer", str(tmp_path / name), "1")
        assert outcome.code == 2
        assert "no such file" in outcome.error_line
        assert said is None or said in outcome.error_line
    near = run_insight("tokenizer", "decode", "--tokenizer", str(folder / "tt.json"), "1")
    assert f"did you mean {folder / 't.json'}?" in near.error_line


def test_one_vocabulary_for_two_languages(folder: Path, tmp_path: Path) -> None:
    texts = ("--text", f"en={folder}/en*.txt", "--text", f"ru={folder / 'ru.txt'}")
    output = tmp_path / "joint.json"
    outcome = run_insight("tokenizer", "train", *texts, "--output", str(output), "--vocabulary_size", "500")
    assert outcome.code == 0, outcome.err
    joint = load_tokenizer(output)
    assert joint.vocabulary_size == 500
    english, russian = (joint.encode(text) for text in (" the", " этих"))
    assert len(english) == 1
    assert len(russian) == 1


def test_a_vocabulary_for_each_language(folder: Path, tmp_path: Path) -> None:
    texts = ("--text", f"en={folder / 'en.txt'}", "--text", f"ru={folder / 'ru.txt'}", "--separate")
    size = ("--vocabulary_size", "280")
    outcome = run_insight("tokenizer", "train", *texts, "--output", str(tmp_path / "both"), *size)
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["en.json", "ru.json"]
    en, ru = (load_tokenizer(tmp_path / "both" / name) for name in ("en.json", "ru.json"))
    assert len(ru.encode(" этих")) < len(en.encode(" этих"))
    again = run_insight("tokenizer", "train", *texts, "--output", str(tmp_path / "both"), *size)
    assert again.code == 2
    assert "exists already" in again.error_line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "no text to train on"),
        (["--text", "en.txt"], "needs a name and files"),
        (["--text", "=en.txt"], "needs a name and files"),
        (["--separate", "--text", "en=corpus:austen-emma"], "--separate needs two --text or more"),
        (
            ["--separate", "--text", "a/b=corpus:austen-emma", "--text", "c=corpus:austen-emma"],
            "text=a/b: the name is no file name",
        ),
        (["--text", "en=missing.txt"], "no such file"),
    ],
)
def test_what_train_refuses(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run_insight("tokenizer", "train", *options, "--output", "out")
    assert outcome.code == 2
    assert said in outcome.error_line
    assert not list(tmp_path.iterdir())


def test_inspect_has_a_row_for_each_language(folder: Path) -> None:
    base = ("tokenizer", "inspect", "--tokenizer", str(folder / "t.json"))
    texts = ("--text", f"en={folder}/en*.txt", "--text", f"ru={folder / 'ru.txt'}")
    outcome = run_insight(*base, *texts, "--json")
    assert outcome.code == 0, outcome.err
    rows = {row["name"]: row for row in json.loads(outcome.out)["files"]}
    assert list(rows) == ["en", "ru"]
    assert rows["en"]["documents"] == 2
    assert rows["en"]["bytes_per_token"] > 1.5 * rows["ru"]["bytes_per_token"]
    plain = run_insight(*base, *texts).out
    assert "en: " in plain
    assert "ru: " in plain


def test_encode_imports_no_torch(folder: Path, tmp_path: Path) -> None:
    arguments = [
        "tokenizer", "encode", "--tokenizer", str(folder / "t.json"), "--files", str(folder / "en.txt"),
        "--num_workers", "1", "--cache_dir", str(tmp_path),
    ]  # fmt: skip
    script = (
        "import sys\nfrom insight.cli.main import main\n"
        f"code = main({arguments!r})\n"
        "sys.exit(code or ('imported torch' if 'torch' in sys.modules else 0))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_check_says_which_encoder_is_used(workplace: Path, insight: Callable[..., Outcome]) -> None:
    outcome = insight("check", "--config", "tiny.yaml")
    assert outcome.code == 0, outcome.err
    assert "encoded by ByteTokenizer" in outcome.out
    bpe = ("--data.tokenizer", "BPETokenizerConfig", "--data.tokenizer.vocabulary_size", "280")
    outcome = insight("check", "--config", "tiny.yaml", *bpe)
    assert outcome.code == 0, outcome.err
    assert "encoded by fastokens " in outcome.out or "encoded by tokenizers " in outcome.out


def test_executor_of_a_run(workplace: Path, insight: Callable[..., Outcome]) -> None:
    """Chosen in YAML by its class, like every component."""
    executor = ("--data.executor", "LocalProcesses", "--data.executor.num_workers", "2")
    outcome = insight("check", "--config", "tiny.yaml", *executor, "--data.cache_dir", "cache")
    assert outcome.code == 0, outcome.err
    wrong = insight("check", "--config", "tiny.yaml", "--data.executor", "LocalProcess")
    assert wrong.code == 2
