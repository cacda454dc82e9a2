"""Processes that are killed or start together: one store, complete or not there, made once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import warm_processes
from preparing import prepare
from warm_processes import start_warm

from insight.data import BPETokenizerConfig, Preparation, TextFiles, TokenStore, read_corpus
from insight.runtime.errors import DataError

PREPARE = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from preparing import prepare
prepare(Path(sys.argv[1]), Path(sys.argv[2]))
"""

# A writer that says a store is complete before it is.
MANIFEST_FIRST = """
import shutil, time
from insight.data.store import cache
def publish(temporary, final):
    final.mkdir()
    for path in sorted(temporary.iterdir(), key=lambda path: path.suffix != ".json"):
        shutil.copy(path, final / path.name)
        time.sleep(1)
    return True
cache.publish_folder = publish
"""

# Never comes to the end of a store.
HANGING = """
import time
from insight.data.store import StoreWriter
StoreWriter.close = lambda self, origin: time.sleep(600)
"""


def start(text: Path, cache: Path, fault: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", fault + PREPARE, str(text), str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def prepare_and_tell(text: Path, cache: Path, begun: Connection) -> None:
    """A process that is to be killed says through a pipe that it begins."""
    prepare(text, cache, lambda: begun.send("ready"))


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def wait_for(there: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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


def published(cache: Path) -> list[Path]:
    """The folders that another process would take for stores."""
    return [path for path in cache.glob("stores/*") if path.is_dir() and not path.name.startswith(".")]


def torn(cache: Path) -> list[str]:
    """What is wrong with published stores."""
    problems = []
    for folder in published(cache):
        try:
            TokenStore(folder).verify()
        except DataError as error:
            problems.append(error.problem)
    return problems


def next_start(text: Path, cache: Path) -> None:
    """Here without a process of its own."""
    files = TextFiles(str(text), None, None, None, "text", 0.1, 0)
    preparation = Preparation(files, BPETokenizerConfig(500), cache)
    for split in ("train", "validation"):
        preparation.store(split).verify()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "novel.txt"
    path.write_text(read_corpus("austen-persuasion")[:150_000])
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


@pytest.mark.parametrize("num_kills", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments(
    text: Path, tmp_path: Path, expected: tuple[dict[str, bytes], float], num_kills: int
) -> None:
    content, seconds = expected
    moments = random.Random(num_kills)
    num_published = set()
    for attempt in range(num_kills):
        cache = tmp_path / str(attempt)
        ready, begun = Pipe(duplex=False)
        process = start_warm(prepare_and_tell, text, cache, begun)
        begun.close()
        assert ready.recv() == "ready"
        time.sleep(moments.uniform(0, seconds))
        warm_processes.kill(process)
        assert torn(cache) == []
        num_published.add(len(published(cache)))
        next_start(text, cache)  # finds the old stores, or makes complete new ones
        assert content_of(cache) == content
    assert min(num_published) < 2  # some were killed before the end


def test_planted_fault_is_seen(text: Path, tmp_path: Path) -> None:
    """The same look at what a kill leaves catches a writer that publishes the manifest first."""
    process = start(text, tmp_path, MANIFEST_FIRST)
    wait_for(lambda: list(tmp_path.glob("stores/*/manifest.json")))
    time.sleep(random.uniform(0, 1))
    kill(process)
    assert len(torn(tmp_path)) == 1
    next_start(text, tmp_path)  # which is found, set aside and made again all the same
    assert torn(tmp_path) == []
    assert len(list((tmp_path / "quarantine").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 8])
def test_processes_that_start_together_encode_once(
    text: Path, tmp_path: Path, expected: tuple[dict[str, bytes], float], num_processes: int
) -> None:
    processes = [start(text, tmp_path) for _ in range(num_processes)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * num_processes, results
    said = "".join(errors for _, errors in results)
    assert said.count("trained a tokenizer") == 1
    assert said.count("encoded ") == 2  # the training part and the validation part
    assert len({output for output, _ in results}) == 1
    assert content_of(tmp_path) == expected[0]


def test_one_that_waits_takes_over_from_one_that_dies(
    text: Path, tmp_path: Path, expected: tuple[dict[str, bytes], float]
) -> None:
    first = start(text, tmp_path, HANGING)
    wait_for(lambda: list(tmp_path.glob("stores/.*.tmp/00000.bin")))
    second = start(text, tmp_path)
    assert second.stdout
    assert second.stderr
    assert second.stdout.readline() == "ready\n"
    assert "waiting for another process that is encoding" in second.stderr.readline()
    kill(first)
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    assert content_of(tmp_path) == expected[0]
