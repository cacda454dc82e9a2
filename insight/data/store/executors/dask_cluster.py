"""Workers of a Dask cluster, on any number of machines that see the same files."""

from __future__ import annotations

import contextlib
import importlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insight.data.store.executors.base import ATTEMPTS, Executor, ExecutorConfig, Item, Result
from insight.runtime.errors import ConfigError, DataError
from insight.runtime.resources import usable_cores

_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class DaskCluster(ExecutorConfig):
    """Encode text on a Dask cluster. Its workers must see the text and the cache under the same paths.

    Args:
        scheduler: Address, e.g. ``tcp://node1:8786``; or the file that ``dask scheduler --scheduler-file``
            wrote. A cluster of this machine is started if it is not given.
        num_workers: Workers of that cluster; one a core if not given.
        patience: Seconds to wait for the scheduler, and for a worker when there is none.
    """

    scheduler: str | None = None
    num_workers: int | None = None
    patience: float = 60.0

    def __post_init__(self) -> None:
        if self.scheduler is not None and not self.scheduler:
            raise ConfigError("scheduler='': names no scheduler", "give an address such as tcp://node1:8786")
        if self.num_workers is not None and self.num_workers < 1:
            raise ConfigError(f"num_workers={self.num_workers}: a cluster has at least 1", "use 1 or more")
        if self.num_workers is not None and self.scheduler is not None:
            raise ConfigError(
                f"num_workers={self.num_workers}: a cluster that runs has its own number",
                "leave out num_workers or scheduler",
            )
        if not self.patience > 0:
            raise ConfigError(f"patience={self.patience}: must be above 0 seconds", "use e.g. 60")

    def workers_for(self, num_bytes: int) -> int:
        """The configured number, else one a core; whoever names a cluster wants it used."""
        return self.num_workers or usable_cores()

    def build(self, num_workers: int) -> DaskExecutor:
        """A client of the cluster."""
        try:
            distributed: Any = importlib.import_module("distributed")
        except ImportError as error:
            raise ConfigError("the executor DaskCluster needs dask", "pip install 'insight[dask]'") from error
        if self.scheduler is None:
            cluster = distributed.LocalCluster(
                n_workers=num_workers, threads_per_worker=1, dashboard_address=None
            )
            return DaskExecutor(distributed, distributed.Client(cluster), self.patience, cluster)
        if self.scheduler.endswith(".json"):
            if not Path(self.scheduler).is_file():  # the library would wait for it without end
                raise ConfigError(
                    f"scheduler={self.scheduler!r}: no such file",
                    "start one with `dask scheduler --scheduler-file FILE`",
                )
            where = {"scheduler_file": self.scheduler}
        else:
            where = {"address": self.scheduler}
        try:
            client = distributed.Client(**where, timeout=self.patience, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise ConfigError(
                f"scheduler={self.scheduler!r}: no Dask scheduler answers ({str(error).splitlines()[0]})",
                "start one with `dask scheduler`, and workers with `dask worker ADDRESS`",
            ) from error
        return DaskExecutor(distributed, client, self.patience)


class DaskExecutor(Executor):
    """A client; tasks of a worker that is lost go to another one.

    Args:
        distributed: The library.
        client: Of the cluster.
        patience: Seconds to wait for a worker when there is none.
        cluster: To be ended with the client, if this process started it.
    """

    def __init__(self, distributed: Any, client: Any, patience: float, cluster: Any = None) -> None:
        self._distributed = distributed
        self._client: Any = client
        self._cluster = cluster
        self._patience = patience
        self._last_seen = time.monotonic()
        try:
            client.wait_for_workers(1, timeout=patience)
        except (TimeoutError, distributed.TimeoutError) as error:
            self.close()
            raise ConfigError(
                f"the Dask scheduler has had no worker for {patience:g} s",
                "start some: `dask worker ADDRESS --nthreads 1`",
            ) from error

    @property
    def num_workers(self) -> int:
        return max(1, self._num_threads())

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        # A name that no other client of the scheduler has: equal names would share one result.
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
            with contextlib.suppress(Exception):  # the scheduler may be the one that has gone
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
                if future.done():  # the function itself ran out of time somewhere
                    return future.result()
                self._check_workers()
            except self._distributed.KilledWorker as error:
                raise DataError(
                    f"{item}: {ATTEMPTS} or more workers died over it",
                    "is there enough memory? give each worker more (--memory-limit) or one thread",
                ) from error
            except self._distributed.CancelledError as error:
                raise DataError("the Dask scheduler was lost", "start it again, then the command") from error

    def _check_workers(self) -> None:
        """Refuse to wait for ever where nobody is left to do the work."""
        if self._num_threads():
            self._last_seen = time.monotonic()
        elif time.monotonic() - self._last_seen > self._patience:
            raise DataError(
                f"the Dask scheduler has had no worker for {self._patience:g} s",
                "start some: `dask worker ADDRESS --nthreads 1`, then the command again",
            )

    def _num_threads(self) -> int:
        try:
            return sum(self._client.nthreads().values())
        except (OSError, TimeoutError, self._distributed.TimeoutError):
            return 0
