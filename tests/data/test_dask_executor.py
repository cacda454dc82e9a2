"""A real Dask scheduler and two real workers make the store of one process, also when one is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import executor_tasks
import pytest
from executor_tasks import Call

from insight.data import (
    BPETokenizerConfig,
    DaskCluster,
    InProcess,
    Preparation,
    TextFiles,
    read_corpus,
)
from insight.data.encoding import tasks
from insight.data.encoding.executors import ExecutorConfig
from insight.data.sources import ranges
from insight.runtime.errors import ConfigError, DataError

pytest.importorskip("distributed")

FOLDER = Path(__file__).parent
TOKENIZER = BPETokenizerConfig(400).build([read_corpus("austen-persuasion")[:100_000]])
SECONDS = 60


class Cluster(NamedTuple):
    """Processes on the loopback interface.

    Attributes:
        scheduler_file: Says where the scheduler is.
        workers: One thread each, and nobody who would start them again.
    """

    scheduler_file: Path
    workers: list[subprocess.Popen[bytes]]


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "out of time"
        time.sleep(0.02)


@contextlib.contextmanager
def dask(folder: Path, num_workers: int) -> Iterator[Cluster]:
    scheduler_file = folder / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(FOLDER), "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

    def start(kind: str, *options: str) -> subprocess.Popen[bytes]:
        log = open(folder / f"{kind}.log", "ab")  # noqa: SIM115 (the process keeps it)
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", kind, "--scheduler-file", str(scheduler_file), *options],
                stdout=log,
                stderr=log,
                env=environment,
                cwd=folder,
            )

    processes = [start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")]
    try:
        workers = [
            start("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--name", str(number))
            for number in range(num_workers)
        ]
        processes += workers
        wait_until(scheduler_file.exists)
        yield Cluster(scheduler_file, workers)
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    novel = read_corpus("austen-emma")
    (folder / "novel.txt").write_text(novel, encoding="utf-8")
    lines = [json.dumps({"text": paragraph}) for paragraph in novel.split("\n\n")]
    (folder / "lines.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "RANGE_BYTES", 20_000)
    monkeypatch.setattr(tasks, "_LEAST_TASK_BYTES", 20_000)
    monkeypatch.setattr(tasks, "_TASKS_A_WORKER", 40)


def stores(cache: Path, text: Path, executor: ExecutorConfig) -> dict[str, bytes]:
    files = TextFiles(str(text), None, None, None, "text", 0.1, 0)
    preparation = Preparation(files, TOKENIZER, cache, executor=executor)
    paths = [path for split in ("train", "validation") for path in preparation.store(split).path.iterdir()]
    assert not [path for path in (cache / "stores").iterdir() if path.name.startswith(".")]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in paths}


@pytest.mark.slow
def test_a_killed_worker_changes_no_byte(tmp_path: Path, text: Path) -> None:
    expected = stores(tmp_path / "one", text, InProcess())
    with dask(tmp_path, 2) as cluster:
        config = DaskCluster(str(cluster.scheduler_file), patience=SECONDS)
        parts = tmp_path / "many" / "stores"

        def kill_one_in_the_middle() -> None:
            # Both are at work, and there are results already.
            wait_until(lambda: len(list(parts.glob(".*/parts/*/manifest.json"))) >= 2)
            os.kill(cluster.workers[0].pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_one_in_the_middle)
        killer.start()
        found = stores(tmp_path / "many", text, config)
        killer.join(SECONDS)
        assert not killer.is_alive()
        assert cluster.workers[0].wait(SECONDS) == -signal.SIGKILL
        assert cluster.workers[1].poll() is None
        assert found == expected
        # What a worker raises arrives as it was raised, and the cluster goes on.
        with config.build(1) as executor:
            results = executor.map(executor_tasks.fail_at_three, [Call(number, "") for number in range(5)])
            assert [next(results) for _ in range(3)] == [0, 1, 2]
            with pytest.raises(DataError, match=r"file3.txt: byte 7 is not UTF-8: convert it"):
                next(results)
        # When the last worker dies nobody waits for ever.
        with DaskCluster(str(cluster.scheduler_file), patience=2).build(1) as executor:
            waiting = executor.map(executor_tasks.wait, [Call(0, str(tmp_path))])
            threading.Timer(0.5, cluster.workers[1].kill).start()
            with pytest.raises(DataError, match="has had no worker for 2 s"):
                next(waiting)
        with pytest.raises(ConfigError, match="has had no worker for 1 s"):
            DaskCluster(str(cluster.scheduler_file), patience=1).build(1)


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        DaskCluster("tcp://127.0.0.1:1", patience=1).build(1)
    assert error.value.option == "scheduler"
    with pytest.raises(ConfigError) as error:
        DaskCluster("nonsense://nowhere", patience=1).build(1)
    assert error.value.option == "scheduler"
    with pytest.raises(ConfigError) as error:
        DaskCluster(str(tmp_path / "missing.json"), patience=1).build(1)
    assert error.value.option == "scheduler"
