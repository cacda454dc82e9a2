"""Workers on this machine: a process each, started anew when one dies."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from insight.data.store.executors.base import ATTEMPTS, Executor, ExecutorConfig, Item, Result
from insight.data.store.executors.framing import read_message, write_message
from insight.runtime.errors import ConfigError, DataError
from insight.runtime.messages import say
from insight.runtime.resources import usable_cores, usable_memory_bytes

# Text below this is encoded sooner than workers have started.
_WORTH_BYTES = 1 << 26
# What a worker needs, roughly: the libraries, and a few megabytes of text with its words and ids.
_WORKER_BYTES = 600 << 20
_SHARE_OF_MEMORY = 0.5
_GOODBYE_SECONDS = 1.0
# What encoding needs, loaded while the first item is still being made.
_MODULES = ("insight.data.encode_tasks", "tokenizers", "fastokens")
# One thread a worker: libraries with a thread a core in every worker would make all of them slower.
_ENVIRONMENT = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class LocalProcesses(ExecutorConfig):
    """Encode much text in several processes of this machine, little text in this process.

    Args:
        num_workers: Processes; as many as cores and memory allow if not given, 0 for none.
    """

    num_workers: int | None = None

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 0:
            raise ConfigError(f"num_workers={self.num_workers}: must not be negative", "use 0 for none")

    def workers_for(self, num_bytes: int) -> int:
        """The configured number, else what the machine allows and the text is worth."""
        if self.num_workers is not None:
            return self.num_workers
        most = min(usable_cores(), int(_free_bytes() * _SHARE_OF_MEMORY) // _WORKER_BYTES)
        return most if num_bytes >= _WORTH_BYTES and most > 1 else 0

    def build(self, num_workers: int) -> ProcessPool:
        """The pool; its processes start at once."""
        return ProcessPool(num_workers, _MODULES)


class ProcessPool(Executor):
    """Processes that are started anew: nothing of this one reaches them but pickled items.

    They are no children of :mod:`multiprocessing`, which would run the user's main module in each of them.

    Args:
        num_workers: How many, 1 or more.
        modules: What they import while they wait for their first item, where it is installed.
    """

    def __init__(self, num_workers: int, modules: Sequence[str] = ()) -> None:
        if num_workers < 1:
            raise ConfigError(f"num_workers={num_workers}: a pool has at least 1", "use 1 or more")
        self._num_workers = num_workers
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="insight-encode")
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all: set[_Worker] = set()
        self._lock = threading.Lock()
        self._is_closed = False
        self._modules = tuple(modules)
        try:
            for _ in range(num_workers):
                self._idle.put(self._start())
        except BaseException:  # nobody gets this pool, so nobody could end the workers it has
            self.close()
            raise

    @property
    def num_workers(self) -> int:
        return self._num_workers

    @property
    def process_ids(self) -> list[int]:
        """Of the workers that run now."""
        with self._lock:
            return [worker.process_id for worker in self._all]

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        futures = [self._threads.submit(self._run, function, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            workers = list(self._all)
        for worker in workers:
            worker.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _run(self, function: Callable[[Item], Result], item: Item) -> Result:
        request = pickle.dumps((function, item))
        died = None
        for _ in range(ATTEMPTS):
            worker = self._take()
            try:
                done, value = worker.ask(request)
            except _WorkerDiedError as error:
                died = error
                self._forget(worker)
                if not self._is_closed:
                    say(f"a worker that encoded {item} {error}; another one begins it again")
                continue
            self._idle.put(worker)
            if not done:
                raise value
            result: Result = value
            return result
        raise DataError(
            f"{item}: {ATTEMPTS} workers died over it, the last one {died}",
            "is there enough memory? try fewer workers, e.g. num_workers=1",
        )

    def _take(self) -> _Worker:
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait()
        # Threads and workers are the same number, so none is idle only where one has died.
        return self._start()

    def _start(self) -> _Worker:
        with self._lock:
            if self._is_closed:
                raise DataError("the workers were ended")
            worker = _Worker(self._modules)
            self._all.add(worker)
            return worker

    def _forget(self, worker: _Worker) -> None:
        with self._lock:
            self._all.discard(worker)
        worker.kill()


class _WorkerDiedError(Exception):
    """It did not reply; says how it ended."""


class _Worker:
    """One process, used by one thread at a time."""

    def __init__(self, modules: Sequence[str]) -> None:
        package = Path(__file__).resolve().parents[4]  # the folder that holds `insight`
        path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "insight.data.store.executors.worker", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": path},
        )

    @property
    def process_id(self) -> int:
        return self._process.pid

    def ask(self, request: bytes) -> tuple[bool, Any]:
        """Whether it succeeded, and the result or the exception.

        Raises:
            _WorkerDiedError: It will never reply.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            write_message(self._process.stdin, request)
            reply = read_message(self._process.stdout)
        except (EOFError, OSError, ValueError) as error:  # ValueError: closed by another thread
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GOODBYE_SECONDS)  # how it ended by itself, if it did
            self.kill()
            raise _WorkerDiedError(_ending(self._process.wait())) from error
        done, value = pickle.loads(reply)
        return done, value

    def kill(self) -> None:
        """End it now; nothing that it has not published is missed."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what it has not read yet is lost with it
                if pipe:
                    pipe.close()


def _ending(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _free_bytes() -> int:
    return min(usable_memory_bytes(), int(psutil.virtual_memory().available))
