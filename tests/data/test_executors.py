"""Executors give all results in order, survive their workers, say what failed, leave no process behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import executor_tasks
import psutil
import pytest
from executor_tasks import Call

from insight.data.encoding import executors
from insight.data.encoding.executors import (
    DaskCluster,
    InProcess,
    InProcessExecutor,
    LocalProcesses,
    ProcessPool,
)
from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError, DataError, InsightError

FOLDER = Path(__file__).parent


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))


def calls(folder: Path, count: int) -> list[Call]:
    return [Call(number, str(folder)) for number in range(count)]


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def is_running(process_id: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE)
    return False


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_results_come_in_order_from_all_workers(tmp_path: Path, num_workers: int) -> None:
    with ProcessPool(num_workers) as pool:
        results = list(pool.map(executor_tasks.process_of, calls(tmp_path, 12)))
        assert [number for number, _ in results] == list(range(12))
        used = {process for _, process in results}
        assert len(used) <= num_workers
        assert os.getpid() not in used
        assert used <= set(pool.process_ids)
        # The pool may be used again, and its processes are.
        again = list(pool.map(executor_tasks.process_of, calls(tmp_path, 12)))
        assert {process for _, process in again} <= set(pool.process_ids)
    assert not any(map(is_running, used))


@pytest.mark.parametrize("modules", [(), ("wave", "no_such_module")])
def test_workers_start_at_once_and_load_what_they_will_need(tmp_path: Path, modules: tuple[str, ...]) -> None:
    with ProcessPool(2, modules) as pool:
        assert len(pool.process_ids) == 2
        loaded = list(pool.map(executor_tasks.has_loaded_wave, calls(tmp_path, 4)))
        assert loaded == [bool(modules)] * 4
        assert len(pool.process_ids) == 2


def test_what_encoding_needs_is_loaded_before_the_first_item() -> None:
    with LocalProcesses(1).build(1) as pool:
        assert isinstance(pool, ProcessPool)
        worker = psutil.Process(pool.process_ids[0])
        needed = {"insight.data.encoding.tasks", "tokenizers"}
        wait_until(lambda: needed <= set(worker.cmdline()))  # empty while the process is being started
    check = (
        "import insight.data.encoding.tasks, sys; print(sorted({'torch', 'lightning'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_in_this_process(tmp_path: Path) -> None:
    with InProcessExecutor() as executor:
        results = executor.map(executor_tasks.process_of, calls(tmp_path, 2))
        assert list(results) == [(0, os.getpid()), (1, os.getpid())]


def test_error_of_an_item_is_raised_as_it_was(tmp_path: Path) -> None:
    with ProcessPool(2) as pool:
        results = pool.map(executor_tasks.fail_at_three, calls(tmp_path, 6))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(DataError, match=r"file3.txt: byte 7 is not UTF-8: convert it") as caught:
            next(results)
        assert caught.value.remedy == "convert it"
        # The worker is still good.
        assert list(pool.map(executor_tasks.process_of, calls(tmp_path, 1)))


def test_error_that_cannot_travel_is_told(tmp_path: Path) -> None:
    with ProcessPool(1) as pool, pytest.raises(InsightError, match="LocalError: number 0"):
        list(pool.map(executor_tasks.fail_strangely, calls(tmp_path, 1)))


def test_output_of_a_worker_does_not_mix_with_its_results(tmp_path: Path) -> None:
    with ProcessPool(1) as pool:
        assert list(pool.map(executor_tasks.print_and_return, calls(tmp_path, 3))) == [0, 1, 2]


def test_killed_workers_are_replaced_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with deadline(30), ProcessPool(2) as pool:
        assert list(pool.map(executor_tasks.die_once, calls(tmp_path, 6))) == list(range(6))
    said = capsys.readouterr().err
    assert said.count("was ended by signal 9; another one begins it again") == 3


def test_an_item_that_kills_every_worker_is_given_up(tmp_path: Path) -> None:
    with (
        deadline(30),
        ProcessPool(2) as pool,
        pytest.raises(DataError, match="3 workers died over it, the last one was ended by signal 9"),
    ):
        list(pool.map(executor_tasks.die, calls(tmp_path, 1)))


def test_no_worker_is_left_where_one_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = subprocess.Popen, []

    def second_fails(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        if started:
            raise BlockingIOError("no more processes")
        started.append(start(*arguments, **options))  # type: ignore[call-overload]
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", second_fails)
    with pytest.raises(BlockingIOError, match="no more processes"):
        ProcessPool(2)
    assert started[0].poll() is not None


def test_closing_ends_workers_in_the_middle(tmp_path: Path) -> None:
    with deadline(20):
        pool = ProcessPool(2)
        results = pool.map(executor_tasks.wait, calls(tmp_path, 4))
        threading.Thread(target=_take_one, args=(results,), daemon=True).start()
        wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        running = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
        assert all(map(is_running, running))
        pool.close()
        pool.close()
        assert not any(map(is_running, running))


def _take_one(results: Iterator[object]) -> None:
    with contextlib.suppress(DataError):
        next(results)


PARENT = """
import signal
import sys
from pathlib import Path
from executor_tasks import Call, wait
from insight.data.encoding.executors import ProcessPool
# A job that a shell has put into the background inherits that this signal is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
with ProcessPool(1) as pool:
    list(pool.map(wait, [Call(0, sys.argv[1])]))
"""


@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGINT"])
def test_no_worker_outlives_a_killed_or_interrupted_parent(tmp_path: Path, signal_name: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: (tmp_path / "0.pid").exists() and (tmp_path / "0.pid").read_text() != "", 20)
    worker = int((tmp_path / "0.pid").read_text())
    process.send_signal(getattr(signal, signal_name))
    process.communicate(timeout=20)
    wait_until(lambda: not is_running(worker))


def test_how_many_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "usable_cores", lambda: 8)
    monkeypatch.setattr(executors, "_free_bytes", lambda: 64 << 30)
    assert LocalProcesses().workers_for(1 << 20) == 0
    assert LocalProcesses().workers_for(1 << 30) == 8
    assert LocalProcesses(3).workers_for(1) == 3
    assert LocalProcesses(0).workers_for(1 << 40) == 0
    assert InProcess().workers_for(1 << 40) == 0
    assert DaskCluster("tcp://a:1").workers_for(1) > 0
    monkeypatch.setattr(executors, "_free_bytes", lambda: 4 << 30)
    assert LocalProcesses().workers_for(1 << 30) == 3
    monkeypatch.setattr(executors, "usable_cores", lambda: 1)
    assert LocalProcesses().workers_for(1 << 30) == 0


@pytest.mark.parametrize(
    ("build", "option"),
    [
        (lambda: LocalProcesses(-1), "num_workers"),
        (lambda: ProcessPool(0), "num_workers"),
        (lambda: DaskCluster(""), "scheduler"),
        (lambda: DaskCluster(num_workers=0), "num_workers"),
        (lambda: DaskCluster("tcp://a:1", 3), "num_workers"),
        (lambda: DaskCluster(patience=0.0), "patience"),
    ],
)
def test_wrong_configurations(build: Callable[[], object], option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build()
    assert caught.value.option == option
    assert caught.value.remedy


def test_configurations_travel_as_plain_values() -> None:
    for config in (LocalProcesses(2), InProcess(), DaskCluster("tcp://a:1")):
        data = config.to_dict()
        assert data["class_path"] == f"insight.data.{type(config).__name__}"
        assert component_from_dict(data) == config


def test_without_dask_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'insight\[dask\]'"):
        DaskCluster().build(1)
