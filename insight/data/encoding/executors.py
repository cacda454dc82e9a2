"""Where text is encoded: in this process, in local worker processes or on a Dask cluster."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from insight.data.encoding.worker import read_message, write_message
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError, DataError
from insight.runtime.messages import say
from insight.runtime.numbers import require_number
from insight.runtime.resources import usable_cores, usable_memory_bytes

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WORKERS = 1024
"""Upper limit of the number of workers."""
ATTEMPTS = 3
"""Number of workers that may die over one item before the item fails."""


class Executor(ABC):
    """Runs a function on many small items; as a context manager it ends its workers.

    An item may run more than once, even twice at the same time, because a lost worker may still be running.
    So the function must leave the same result however often it runs.
    """

    @property
    @abstractmethod
    def num_workers(self) -> int:
        """Number of items that run at once."""

    @abstractmethod
    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result, None, None]:
        """Yield the results in the order of the items, each once it and all before it are ready.

        No further item begins after the generator is closed.

        Args:
            function: A function that workers can import by its name.
            items: Small picklable objects; messages show ``str`` of an item.

        Raises:
            DataError: Workers died repeatedly over one item, or no worker is left.
            Exception: The error of ``function`` for the first item that failed.
        """

    def close(self) -> None:  # noqa: B027 (an executor may have no workers)
        """End the workers even if they are working; a second call does nothing."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True)
class ExecutorConfig(Component):
    """Base of the executor configurations."""

    @abstractmethod
    def workers_for(self, num_bytes: int) -> int:
        """Number of workers for ``num_bytes`` of text; 0 if encoding in this process is faster."""

    @abstractmethod
    def build(self, num_workers: int) -> Executor:
        """Build an executor; a running cluster ignores ``num_workers``."""


def _check_workers(num_workers: int | None, least: int) -> None:
    require_number(
        "num_workers", num_workers, 4, whole=True, optional=True, at_least=least, at_most=MAX_WORKERS
    )


class InProcessExecutor(Executor):
    """Runs each item in this process when its result is requested."""

    num_workers = 1

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result, None, None]:
        yield from map(function, items)


@dataclass(frozen=True)
class InProcess(ExecutorConfig):
    """Encode text in this process, whatever its size."""

    def workers_for(self, num_bytes: int) -> int:
        """Always 0: there are no workers."""
        return 0

    def build(self, num_workers: int) -> InProcessExecutor:
        """Build the executor."""
        return InProcessExecutor()


# Less text than this is encoded before workers have started.
_WORTH_BYTES = 1 << 26
# Approximate memory of a worker: libraries, and a few megabytes of text with its words and ids.
_WORKER_BYTES = 600 << 20
_SHARE_OF_MEMORY = 0.5
_GOODBYE_SECONDS = 1.0
# Modules needed for encoding; workers import them while the first item is prepared.
_MODULES = ("insight.data.encoding.tasks", "tokenizers", "fastokens")
# One thread per worker: a thread per core in every worker would slow all of them down.
_ENVIRONMENT = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class LocalProcesses(ExecutorConfig):
    """Encode large texts in several processes of this machine, small ones in this process.

    Args:
        num_workers: Number of processes; as many as cores and memory allow if not given, 0 for none.
    """

    num_workers: int | None = None

    def __post_init__(self) -> None:
        _check_workers(self.num_workers, least=0)

    def workers_for(self, num_bytes: int) -> int:
        """The configured number, else as many as the machine allows and the text justifies."""
        if self.num_workers is not None:
            return self.num_workers
        most = min(usable_cores(), int(_free_bytes() * _SHARE_OF_MEMORY) // _WORKER_BYTES)
        return most if num_bytes >= _WORTH_BYTES and most > 1 else 0

    def build(self, num_workers: int) -> ProcessPool:
        """Build the pool; its processes start at once."""
        return ProcessPool(num_workers, _MODULES)


class ProcessPool(Executor):
    """Worker processes that receive only pickled items and are replaced when they die.

    The executors of :mod:`concurrent.futures` and ``loky`` break entirely when a worker is killed, and cannot
    say which item it had; :mod:`multiprocessing` runs the user's main module in every worker.

    Args:
        num_workers: Number of processes, at least 1.
        modules: Names of modules that workers import while they wait for their first item.
    """

    def __init__(self, num_workers: int, modules: Sequence[str] = ()) -> None:
        require_number("num_workers", num_workers, 1, whole=True, at_least=1)
        self._num_workers = num_workers
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="insight-encode")
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all: set[_Worker] = set()
        self._lock = threading.Lock()
        self._is_closed = False
        self._modules = modules
        try:
            for _ in range(num_workers):
                self._idle.put(self._start())
        except BaseException:  # The caller never gets this pool, so it could not end the workers.
            self.close()
            raise

    @property
    def num_workers(self) -> int:
        return self._num_workers

    @property
    def process_ids(self) -> list[int]:
        """Process ids of the running workers."""
        with self._lock:
            return [worker.process.pid for worker in self._all]

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result, None, None]:
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
            try:
                worker = self._idle.get_nowait()
            except queue.Empty:  # There are as many threads as workers, so one has died.
                worker = self._start()
            try:
                done, value = worker.ask(request)
            except _WorkerDiedError as error:
                died = error
                with self._lock:
                    self._all.discard(worker)
                if not self._is_closed:
                    say(f"a worker that encoded {item} {error}; another one begins it again")
                continue
            self._idle.put(worker)
            if not done:
                raise value
            result: Result = value
            return result
        remedy = "is there enough memory? try fewer workers, e.g. num_workers=1"
        raise DataError(f"{item}: {ATTEMPTS} workers died over it, the last one {died}", remedy)

    def _start(self) -> _Worker:
        with self._lock:
            if self._is_closed:
                raise DataError("the workers were ended")
            worker = _Worker(self._modules)
            self._all.add(worker)
            return worker


class _WorkerDiedError(Exception):
    """A worker did not reply; the message states how it ended."""


class _Worker:
    """One process, used by one thread at a time."""

    def __init__(self, modules: Sequence[str]) -> None:
        package = Path(__file__).resolve().parents[3]  # The folder that contains `insight`.
        path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "insight.data.encoding.worker", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": path},
        )

    def ask(self, request: bytes) -> tuple[bool, Any]:
        """Send an item; return whether it succeeded, and its result or its exception."""
        assert self.process.stdin
        assert self.process.stdout
        try:
            write_message(self.process.stdin, request)
            reply = read_message(self.process.stdout)
        except (EOFError, OSError, ValueError) as error:  # ValueError: another thread closed the pipe.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_GOODBYE_SECONDS)  # If it ends by itself, its exit code tells how.
            self.kill()
            code = self.process.wait()
            ending = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise _WorkerDiedError(ending) from error
        done, value = pickle.loads(reply)
        return done, value

    def kill(self) -> None:
        """Kill the process; unpublished results are made again."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # Bytes still unread by the process are lost with it.
                if pipe:
                    pipe.close()


def _free_bytes() -> int:
    return min(usable_memory_bytes(), int(psutil.virtual_memory().available))


_LOOK_SECONDS = 1.0
_START_WORKERS = "start some: `dask worker ADDRESS --nthreads 1`"


@dataclass(frozen=True)
class DaskCluster(ExecutorConfig):
    """Encode text on a Dask cluster, whose workers must see the text and the cache under the same paths.

    Args:
        scheduler: Address, e.g. ``tcp://node1:8786``, or the file written by ``dask scheduler
            --scheduler-file``; if not given, a cluster is started on this machine.
        num_workers: Workers of a cluster on this machine; one per core if not given.
        patience: Seconds to wait for the scheduler, or for a worker if there is none.
    """

    scheduler: str | None = None
    num_workers: int | None = None
    patience: float = 60.0

    def __post_init__(self) -> None:
        if self.scheduler == "":
            remedy = "give an address such as tcp://node1:8786"
            raise ConfigError("names no scheduler", remedy, option="scheduler", value="''")
        _check_workers(self.num_workers, least=1)
        if self.num_workers is not None and self.scheduler is not None:
            problem, remedy = "a cluster that runs has its own number", "leave out num_workers or scheduler"
            raise ConfigError(problem, remedy, option="num_workers", value=self.num_workers)
        require_number("patience", self.patience, 60, above=0, at_most=1e6)

    def workers_for(self, num_bytes: int) -> int:
        """The configured number, else one per core: a configured cluster is always used."""
        return self.num_workers or usable_cores()

    def build(self, num_workers: int) -> DaskExecutor:
        """Connect to the cluster."""
        try:
            distributed: Any = importlib.import_module("distributed")
        except ImportError as error:
            raise ConfigError("the executor DaskCluster needs dask", "pip install 'insight[dask]'") from error
        if self.scheduler is None:
            options = {"threads_per_worker": 1, "dashboard_address": None}
            cluster = distributed.LocalCluster(n_workers=num_workers, **options)
            return DaskExecutor(distributed, distributed.Client(cluster), self.patience, cluster)
        if self.scheduler.endswith(".json"):
            if not Path(self.scheduler).is_file():  # The library would wait for the file forever.
                remedy = "start one with `dask scheduler --scheduler-file FILE`"
                raise ConfigError("no such file", remedy, option="scheduler", value=self.scheduler)
            where = {"scheduler_file": self.scheduler}
        else:
            where = {"address": self.scheduler}
        try:
            client = distributed.Client(**where, timeout=self.patience, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            problem = f"no Dask scheduler answers ({str(error).splitlines()[0]})"
            remedy = "start one with `dask scheduler`, and workers with `dask worker ADDRESS`"
            raise ConfigError(problem, remedy, option="scheduler", value=self.scheduler) from error
        return DaskExecutor(distributed, client, self.patience)


class DaskExecutor(Executor):
    """A client of a Dask cluster; tasks of a lost worker go to another one.

    The cluster is closed with the client if this process started it.
    """

    def __init__(self, distributed: Any, client: Any, patience: float, cluster: Any = None) -> None:
        self._distributed = distributed
        self._client = client
        self._cluster = cluster
        self._patience = patience
        self._last_seen = time.monotonic()
        self._no_worker = f"the Dask scheduler has had no worker for {patience:g} s"
        try:
            client.wait_for_workers(1, timeout=patience)
        except (TimeoutError, distributed.TimeoutError) as error:
            self.close()
            raise ConfigError(self._no_worker, _START_WORKERS) from error

    @property
    def num_workers(self) -> int:
        return max(1, self._num_threads())

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result, None, None]:
        # Names must be unique on the scheduler: equal names of another client would share one result.
        run = uuid.uuid4().hex
        futures = [
            self._client.submit(function, item, key=f"insight-{run}-{number}", pure=False)
            for number, item in enumerate(items)
        ]
        self._last_seen = time.monotonic()
        try:
            for future, item in zip(futures, items, strict=True):
                yield self._result(future, item)
        finally:
            with contextlib.suppress(Exception):  # The scheduler itself may be gone.
                self._client.cancel(futures)

    def close(self) -> None:
        for owner in (self._client, self._cluster):
            if owner is not None:
                with contextlib.suppress(Exception):
                    owner.close(timeout=10)
        self._client, self._cluster = None, None

    def _result(self, future: Any, item: object) -> Any:
        while True:
            try:
                return future.result(timeout=_LOOK_SECONDS)
            except (TimeoutError, self._distributed.TimeoutError):
                if future.done():  # The function itself raised a TimeoutError.
                    return future.result()
                if self._num_threads():
                    self._last_seen = time.monotonic()
                elif time.monotonic() - self._last_seen > self._patience:
                    raise DataError(self._no_worker, f"{_START_WORKERS}, then the command again") from None
            except self._distributed.KilledWorker as error:
                remedy = "is there enough memory? give each worker more (--memory-limit) or one thread"
                raise DataError(f"{item}: {ATTEMPTS} or more workers died over it", remedy) from error
            except self._distributed.CancelledError as error:
                raise DataError("the Dask scheduler was lost", "start it again, then the command") from error

    def _num_threads(self) -> int:
        try:
            return sum(self._client.nthreads().values())
        except (OSError, TimeoutError, self._distributed.TimeoutError):
            return 0
