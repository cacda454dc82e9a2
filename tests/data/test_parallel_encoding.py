"""A store is the same, byte for byte, whatever encoded it; what goes wrong on the way is found and said."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from insight.data import (
    BPETokenizerConfig,
    ByteTokenizer,
    CanaryInjection,
    InProcess,
    LocalProcesses,
    Preparation,
    PretrainedTokenizer,
    TextFiles,
    read_corpus,
)
from insight.data.encoding import tasks
from insight.data.encoding.executors import Executor, ExecutorConfig, InProcessExecutor
from insight.data.encoding.tasks import EncodeTask, EncodingProgress, Selection, encode_part
from insight.data.sources import ranges
from insight.data.sources.formats import TextPart
from insight.data.tokenizers import BaseTokenizer
from insight.runtime.errors import DataError, TokenizerError

NOVEL = read_corpus("austen-persuasion")[:120_000]
TOKENIZER = BPETokenizerConfig(400).build([NOVEL])


class Tasks(ExecutorConfig):
    """Small tasks in this process, through an executor of the test's choice."""

    def __init__(self, executor: Executor | None = None) -> None:
        object.__setattr__(self, "executor", executor or InProcessExecutor())

    def workers_for(self, num_bytes: int) -> int:
        return 1

    def build(self, num_workers: int) -> Executor:
        return self.executor  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "RANGE_BYTES", 3000)
    monkeypatch.setattr(tasks, "_LEAST_TASK_BYTES", 7000)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A long file, many lines, many files, rows, a compressed file, and files without a place to cut."""
    folder = tmp_path_factory.mktemp("texts")
    paragraphs = [each for each in NOVEL.split("\n\n") if each.strip()]
    texts = {name: folder / name for name in ("one.txt", "lines.jsonl", "rows.parquet", "small.txt.gz")}
    texts["one.txt"].write_text(NOVEL, encoding="utf-8")
    lines = [json.dumps({"text": text}) for text in (*paragraphs, "", "  ", "日本語 👩‍👩‍👧")]
    texts["lines.jsonl"].write_text("\n\n".join(lines), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.table({"text": paragraphs}), texts["rows.parquet"], row_group_size=50)
    texts["small.txt.gz"].write_bytes(gzip.compress(NOVEL[:9000].encode()))
    texts["files"] = folder / "files"
    texts["files"].mkdir()
    for number, text in enumerate(paragraphs):
        (texts["files"] / f"{number:04d}.txt").write_text(text, encoding="utf-8")
    texts["uncut.txt"] = folder / "uncut.txt"
    texts["uncut.txt"].write_text("日本" * 9000, encoding="utf-8")
    texts["all"] = folder
    return texts


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def encode(
    cache: Path,
    named: str,
    executor: ExecutorConfig,
    tokenizer: BaseTokenizer = TOKENIZER,
    fraction: float = 0.0,
    canaries: CanaryInjection | None = None,
    invalid_text: str = "error",
) -> dict[str, dict[str, bytes]]:
    """Every file of the stores of both splits."""
    files = TextFiles(named, None, None, None, "text", fraction, 0, canaries, invalid_text)
    preparation = Preparation(files, tokenizer, cache, executor=executor)
    splits = [split for split in ("train", "validation") if preparation.has(split)]
    stores = {split: bytes_of(preparation.store(split).path) for split in splits}
    # Nothing of the work is left behind.
    assert not [path for path in (cache / "stores").iterdir() if path.name.startswith(".")]
    return stores


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.0, 0.1])
@pytest.mark.parametrize(
    "name", ["one.txt", "lines.jsonl", "rows.parquet", "small.txt.gz", "files", "uncut.txt", "all"]
)
def test_tasks_make_the_store_of_one_process(
    tmp_path: Path, texts: dict[str, Path], name: str, fraction: float
) -> None:
    named = str(texts[name])
    expected = encode(tmp_path / "a", named, InProcess(), fraction=fraction)
    counted = Counting()
    assert encode(tmp_path / "b", named, Tasks(counted), fraction=fraction) == expected
    assert counted.num_tasks > 3 or name in ("rows.parquet", "small.txt.gz", "uncut.txt")


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_tokenizers_with_other_places_to_cut(tmp_path: Path, texts: dict[str, Path], fraction: float) -> None:
    unknown_rule = json.loads(TOKENIZER.to_json())
    unknown_rule["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, unknown_rule["pre_tokenizer"]],
    }
    whole = PretrainedTokenizer(json.dumps(unknown_rule))
    assert whole.boundaries is None
    for number, tokenizer in enumerate((ByteTokenizer(), whole)):
        for name in ("one.txt", "all"):
            named, caches = str(texts[name]), [tmp_path / f"{letter}{number}{name}" for letter in "ab"]
            expected = encode(caches[0], named, InProcess(), tokenizer, fraction)
            counted = Counting()
            assert encode(caches[1], named, Tasks(counted), tokenizer, fraction) == expected
            # One document that may not be cut is one piece of work.
            assert (counted.num_tasks == 0) is (tokenizer is whole and name == "one.txt")


def test_canaries_and_repairs(tmp_path: Path) -> None:
    damaged = NOVEL.encode()
    for place in range(100, len(damaged), 5000):
        damaged = damaged[:place] + b"\xff\xfe" + damaged[place:]
    (tmp_path / "a.txt").write_bytes(damaged)
    canaries = CanaryInjection(3, 5)
    for policy in ("skip", "replace"):
        named = str(tmp_path / "a.txt")
        expected = encode(tmp_path / f"a{policy}", named, InProcess(), TOKENIZER, 0.2, canaries, policy)
        found = encode(tmp_path / f"b{policy}", named, Tasks(), TOKENIZER, 0.2, canaries, policy)
        assert found == expected
        origin = json.loads(found["train"]["manifest.json"])["origin"]
        assert origin["repaired_places"] == len(range(100, len(NOVEL.encode()), 5000))


@pytest.mark.slow
def test_processes_make_the_same_store(tmp_path: Path, texts: dict[str, Path]) -> None:
    named = str(texts["all"])
    expected = encode(tmp_path / "0", named, InProcess(), fraction=0.1)
    for num_workers in (1, 2, 3):
        assert (
            encode(tmp_path / str(num_workers), named, LocalProcesses(num_workers), fraction=0.1) == expected
        )


class Counting(InProcessExecutor):
    """Counts the tasks."""

    def __init__(self) -> None:
        self.num_tasks = 0

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[Any, None, None]:
        self.num_tasks += len(items)
        assert all(len(json.dumps(str(item))) < 500 for item in items)
        yield from map(function, items)


class Faulty(InProcessExecutor):
    """Does to results what must never happen.

    Args:
        fault: Given the tasks and what they returned, what arrives.
    """

    def __init__(self, fault: Callable[[list[EncodeTask], list[str]], list[str]]) -> None:
        self.fault = fault

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[Any, None, None]:
        yield from self.fault(list(items), [function(item) for item in items])


def lose(tasks: list[EncodeTask], keys: list[str]) -> list[str]:
    shutil.rmtree(tasks[2].output)
    return keys


def damage(tasks: list[EncodeTask], keys: list[str]) -> list[str]:
    path = tasks[2].output / "00000.bin"
    path.write_bytes(path.read_bytes()[:-2] + b"\0\0")
    return keys


def append_again(tasks: list[EncodeTask], keys: list[str]) -> list[str]:
    """A task that is not idempotent: run a second time, it adds to what it left."""
    path = tasks[2].output / "00000.bin"
    path.write_bytes(path.read_bytes() * 2)
    return keys


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda tasks, keys: keys[:-1], "was lost"),
        (lambda tasks, keys: [keys[1], keys[0], *keys[2:]], "was lost"),
        (lambda tasks, keys: [keys[0], keys[0], *keys[1:]], "was lost"),
        (lose, "is gone .*missing"),
        (damage, "is gone .*damaged"),
        (append_again, "is gone .*bytes instead of"),
    ],
    ids=["lost", "swapped", "twice", "removed", "damaged", "not idempotent"],
)
def test_planted_faults_are_found(
    tmp_path: Path,
    texts: dict[str, Path],
    fault: Callable[[list[EncodeTask], list[str]], list[str]],
    said: str,
) -> None:
    with pytest.raises(DataError, match=rf"one.txt, bytes \d+–\d+.*{said}"):
        encode(tmp_path, str(texts["one.txt"]), Tasks(Faulty(fault)))
    assert [path.suffix for path in (tmp_path / "stores").iterdir()] == [".lock"]
    assert encode(tmp_path, str(texts["one.txt"]), InProcess())


def test_a_task_run_again_leaves_the_same(tmp_path: Path, texts: dict[str, Path]) -> None:
    seen: list[dict[str, bytes]] = []

    class Twice(InProcessExecutor):
        def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[Any, None, None]:
            for item in items:
                key = function(item)
                first = bytes_of(item.output)
                before = item.output.stat().st_ino
                assert function(item) == key
                assert item.output.stat().st_ino == before  # done already
                shutil.rmtree(item.output)
                assert function(item) == key
                assert bytes_of(item.output) == first
                seen.append(first)
                yield key

    expected = encode(tmp_path / "a", str(texts["one.txt"]), InProcess())
    assert encode(tmp_path / "b", str(texts["one.txt"]), Tasks(Twice())) == expected
    assert len(seen) > 3


@pytest.mark.slow
@pytest.mark.parametrize("executor", [Tasks(), LocalProcesses(2)], ids=["tasks", "processes"])
def test_errors_name_the_file_and_are_those_of_one_process(
    tmp_path: Path, texts: dict[str, Path], executor: ExecutorConfig
) -> None:
    lines = texts["lines.jsonl"].read_text(encoding="utf-8").splitlines(keepends=True)
    lines[-5] = "{ not json\n"
    (tmp_path / "bad.jsonl").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n' * 900, encoding="utf-8")
    (tmp_path / "bad.txt").write_bytes(NOVEL.encode() + b"\xff")
    for name in ("bad.jsonl", "empty.jsonl", "bad.txt"):
        said = []
        for number, each in enumerate((InProcess(), executor)):
            with pytest.raises(DataError) as caught:
                encode(tmp_path / f"{name}{number}", str(tmp_path / name), each)
            said.append(str(caught.value))
        assert name in said[0]
        assert said[0] == said[1]


def test_a_worker_that_does_not_see_the_files_says_so(tmp_path: Path, texts: dict[str, Path]) -> None:
    class Elsewhere(InProcessExecutor):
        def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[Any, None, None]:
            shutil.move(items[0].folder, tmp_path / "elsewhere")
            yield from map(function, items)

    with pytest.raises(DataError, match=r"does not see this folder: workers need .* a shared file system"):
        encode(tmp_path / "a", str(texts["one.txt"]), Tasks(Elsewhere()))


def test_a_worker_with_another_tokenizer_is_found(tmp_path: Path, texts: dict[str, Path]) -> None:
    class Another(InProcessExecutor):
        def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[Any, None, None]:
            items[0].tokenizer_file.write_text(ByteTokenizer().to_json())
            yield from map(function, items)

    with pytest.raises(TokenizerError, match="is another tokenizer on"):
        encode(tmp_path, str(texts["one.txt"]), Tasks(Another()))


def test_keys_of_tasks_name_what_decides_their_result(tmp_path: Path, texts: dict[str, Path]) -> None:
    tasks: list[EncodeTask] = []

    class Remember(InProcessExecutor):
        def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Generator[Any, None, None]:
            tasks.extend(item for item in items if isinstance(item, EncodeTask))
            yield from map(function, items)

    for number, fraction in enumerate((0.0, 0.1)):
        encode(tmp_path / str(number), str(texts["one.txt"]), Tasks(Remember()), fraction=fraction)
    assert len({task.key for task in tasks}) == len(tasks) > 3
    assert encode_part.__module__ == "insight.data.encoding.tasks"  # importable by name, by any worker


def test_progress_is_said_from_time_to_time(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    progress = EncodingProgress("a.txt", 100_000_000, interval=10.0, clock=lambda: now)
    for _ in range(10):
        now += 3.0
        progress.advance(10_000_000)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"insight: encoding a.txt: {share}% of 100 MB, 3 MB/s" for share in (40, 80)]
    unknown = EncodingProgress("b.txt.gz", interval=1.0, clock=lambda: now)
    now += 2.0
    assert list(unknown.watch([TextPart("x" * 4_000_000, True)])) == [("x" * 4_000_000, True)]
    assert "encoding b.txt.gz: 4 MB of text, 2 MB/s" in capsys.readouterr().err


def test_nothing_is_said_about_short_work(tmp_path: Path, texts: dict[str, Path], capsys: Any) -> None:
    encode(tmp_path, str(texts["one.txt"]), Tasks())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("insight: encoded ")


def test_division_array_of_any_type_travels(tmp_path: Path) -> None:
    for array in (np.array([True, False]), np.array([3, 9])):
        selection = Selection.save(array, True, tmp_path)
        assert np.array_equal(np.load(selection.file), array)
