"""Processes that are killed or start together: one store, complete or not there, made once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from insight.data import BPETokenizerConfig, Preparation, TextFiles, read_corpus

PREPARE = """
import sys
from pathlib import Path
from insight.data import BPETokenizerConfig, Preparation, TextFiles
files = TextFiles(sys.argv[1], None, None, None, "text", 0.1, 0)
preparation = Preparation(files, BPETokenizerConfig(500), Path(sys.argv[2]))
print("ready", flush=True)
for split in ("train", "validation"):
    store = preparation.store(split)
    print(split, store.path.name, store.num_tokens)
"""


def start(text: Path, cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(text), str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def content_of(cache: Path) -> dict[str, bytes]:
    """Every published file; anything half-written would be among them."""
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file()
        and path.parent.name != "sources"
        and path.suffix != ".lock"
        and not (path.parent.name == "tokenizers" and path.name.startswith("."))  # of a killed write
    }


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "novel.txt"
    path.write_text(read_corpus("austen-persuasion"))
    return path


@pytest.fixture(scope="module")
def expected(text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """What a process that nobody disturbs leaves behind, and how long it takes once it is ready."""
    cache = tmp_path_factory.mktemp("undisturbed")
    process = start(text, cache)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    started = time.perf_counter()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return content_of(cache), time.perf_counter() - started


def test_killed_at_random_moments(
    text: Path, tmp_path: Path, expected: tuple[dict[str, bytes], float]
) -> None:
    content, seconds = expected
    moments = random.Random(0)
    stores_seen = set()
    for attempt in range(6):
        cache = tmp_path / str(attempt)
        process = start(text, cache)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0, seconds))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        published = [path.name for path in cache.glob("stores/*") if len(path.name) == 32]
        stores_seen.add(len(published))
        # The next start, here without a process of its own, finds old stores whole or makes new ones.
        preparation = Preparation(
            TextFiles(str(text), None, None, None, "text", 0.1, 0), BPETokenizerConfig(500), cache
        )
        for split in ("train", "validation"):
            preparation.store(split).verify()
        assert content_of(cache) == content
    assert min(stores_seen) < 2  # some were killed before the end


def test_processes_that_start_together_encode_once(
    text: Path, tmp_path: Path, expected: tuple[dict[str, bytes], float]
) -> None:
    processes = [start(text, tmp_path) for _ in range(3)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    said = "".join(errors for _, errors in results)
    assert said.count("trained a tokenizer") == 1
    assert said.count("encoded ") == 2  # the training part and the validation part
    assert len({output for output, _ in results}) == 1
    assert content_of(tmp_path) == expected[0]
