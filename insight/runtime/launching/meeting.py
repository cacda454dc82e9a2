"""Where the processes of a run find one another: a small store of texts, before and beside torch's group."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from insight.runtime.errors import LaunchError
from insight.runtime.processes import ProcessPlace

_POLL_SECONDS = 0.1
_OPERATION_SECONDS = 60.0
_FAILURE = "failure"
# Launchers start a program once, which may train several times: its processes count alike.
_numbers = itertools.count()


@dataclass(frozen=True)
class Failure:
    """What ended a run of several processes.

    Args:
        rank: Whose it was.
        message: What it said, or what another process found out about it.
        exit_code: What every process of the run returns.
    """

    rank: int
    message: str
    exit_code: int


class EndedElsewhere(SystemExit):
    """Another process ended the run and has said why, so this one leaves without a word.

    Args:
        failure: What ended it.

    Attributes:
        code: Exit code of that process.
    """

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.exit_code)

    def __str__(self) -> str:
        return f"ended by rank {self.failure.rank}: {self.failure.message}"


class Meeting:
    """The store of one run: JSON values by name, written by one process and read by all.

    It is torch's ``TCPStore``. The first process serves it on the port that torch's process group will use
    too (torch shares the server within a process); under torchrun the agent serves it. It answers while the
    Python of the first process is busy, so it also tells who hangs.

    Args:
        place: Of this process.
        address: Name or IP of the machine of the first process.
        port: Its port; 0 lets the first process choose a free one.
        seconds: How long to wait for the first process.

    Attributes:
        port: The port in use.
        while_waiting: Called while this process waits for another, to look after what else may happen.

    Raises:
        LaunchError: The port is in use, or nobody answers there.
    """

    def __init__(self, place: ProcessPlace, address: str, port: int, seconds: float) -> None:
        from torch._C._distributed_c10d import PrefixStore, TCPStore
        from torch.distributed import DistNetworkError, DistStoreError

        self.place = place
        self.while_waiting: Callable[[], None] = lambda: None
        number = next(_numbers) if place.launcher else 0
        served_by_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        serves = place.rank == 0 and not served_by_agent
        if not serves:
            _wait_for_listener(place.rank, address, port, seconds)
        try:
            store = TCPStore(
                address,
                port,
                is_master=serves,
                timeout=timedelta(seconds=max(seconds, 1.0)),
                wait_for_workers=False,
                multi_tenant=True,
            )
        except (DistNetworkError, DistStoreError, ValueError) as error:
            raise _no_store(error, serves, address, port) from error
        store.set_timeout(timedelta(seconds=_OPERATION_SECONDS))
        self.port = store.port
        # A restarted run meets anew, and so does the next one of a program, also where the store is the same.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = PrefixStore(f"insight/{attempt}/{number}", store)

    def publish(self, name: str, value: Any) -> None:
        """Let all processes read ``value``."""
        self._store.set(name, json.dumps(value))

    def take(self, name: str) -> Any:
        """What a process publishes under ``name``, waited for as long as the run lives.

        Raises:
            EndedElsewhere: Another process has ended the run.
        """
        while not self._store.check([name]):
            self._wait()
        return json.loads(self._store.get(name))

    def look(self, name: str) -> Any:
        """What is published under ``name`` by now, or ``None``."""
        return json.loads(self._store.get(name)) if self._store.check([name]) else None

    def of_every_rank(self, name: str) -> list[Any]:
        """What each process has published of its own by now (:meth:`publish_own`), or ``None``."""
        return [self.look(f"{name}/{rank}") for rank in range(self.place.num_processes)]

    def publish_own(self, name: str, value: Any = True) -> None:
        """Let all processes read this one's ``value``."""
        self.publish(f"{name}/{self.place.rank}", value)

    def wait_for_all(self, name: str, seconds: float, option: str = "run.rendezvous_timeout") -> None:
        """Come to a point, and wait until all have.

        Args:
            name: Of the point.
            seconds: How long at most.
            option: Where the user sets that.

        Raises:
            EndedElsewhere: Another process has ended the run.
            LaunchError: Some did not come in time; it says which.
        """
        self.publish_own(name)
        deadline = time.monotonic() + seconds
        missing = list(range(self.place.num_processes))
        while missing := [rank for rank in missing if not self._store.check([f"{name}/{rank}"])]:
            if time.monotonic() > deadline:
                number, come = self.place.num_processes, self.place.num_processes - len(missing)
                raise LaunchError(
                    f"{come} of {number} processes came within {seconds:g} s: {_named(missing)} missing",
                    f"start them all, see what they say, or raise --{option}",
                )
            self._wait()

    def fail(self, rank: int, message: str, exit_code: int) -> Failure:
        """End the run for all processes; the first failure counts, and is returned."""
        mine = json.dumps(asdict(Failure(rank, message, exit_code)))
        return Failure(**json.loads(self._store.compare_set(_FAILURE, "", mine)))

    def failure(self) -> Failure | None:
        """What has ended the run, if anything has."""
        found = self.look(_FAILURE)
        return Failure(**found) if found else None

    def _wait(self) -> None:
        failure = self.failure()
        if failure:
            raise EndedElsewhere(failure)
        self.while_waiting()
        time.sleep(_POLL_SECONDS)


def _wait_for_listener(rank: int, address: str, port: int, seconds: float) -> None:
    """torch's client would print a warning at each attempt."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection((address, port), timeout=5).close()
            return
        if time.monotonic() > deadline:
            raise LaunchError(
                f"rank {rank}: nobody listens at MASTER_ADDR={address}, MASTER_PORT={port} after "
                f"{seconds:g} s",
                "is rank 0 running there? raise --run.rendezvous_timeout if it needs longer to start",
            )
        time.sleep(_POLL_SECONDS)


def _no_store(error: Exception, serves: bool, address: str, port: int) -> LaunchError:
    where = f"MASTER_ADDR={address}, MASTER_PORT={port}"
    text = " ".join(str(error).split())
    if serves and ("EADDRINUSE" in text or "already in use" in text):
        return LaunchError(f"MASTER_PORT={port}: is in use on this machine", "set another, or leave it out")
    if serves and "failed to listen" in text:
        return LaunchError(f"MASTER_PORT={port}: cannot be listened on", "set one from 1024 to 65535")
    return LaunchError(f"{where}: no connection ({text[:120]})", "check both variables and the network")


def _named(ranks: list[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]} is"
    shown = ", ".join(map(str, ranks[:8])) + (", …" if len(ranks) > 8 else "")
    return f"ranks {shown} are"
