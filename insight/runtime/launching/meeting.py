"""The store in which the processes of a run meet, used before and beside torch's process group."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from insight.runtime.errors import LaunchError
from insight.runtime.messages import say
from insight.runtime.processes import ProcessPlace

_POLL_SECONDS = 0.1
_OPERATION_SECONDS = 60.0
# A process that has waited this long for others says which ones are missing.
_SECONDS_UNTIL_SAID = 5.0
_FAILURE = "failure"
# A program that a launcher started once may train several times. All processes number these runs alike.
_numbers = itertools.count()


@dataclass(frozen=True)
class Failure:
    """The event that ended a run of several processes.

    Args:
        rank: Rank of the process that failed.
        message: The error message, or the explanation that another process found.
        exit_code: Exit code of every process of the run.
    """

    rank: int
    message: str
    exit_code: int


class EndedElsewhere(SystemExit):
    """Another process ended the run and said why, so this one leaves silently, with its exit code."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.exit_code)

    def __str__(self) -> str:
        return f"ended by rank {self.failure.rank}: {self.failure.message}"


class Meeting:
    """The store of one run: JSON values by name, which every process can write and read.

    It is torch's ``TCPStore``. The first process serves it on the port that torch's process group also uses
    (torch shares the server within a process); under torchrun the agent serves it. It answers even while the
    Python code of the first process is busy, so it can also show which process hangs.

    Args:
        place: The place of this process.
        address: Name or IP address of the first process's machine.
        port: Port of the store; 0 lets the first process choose a free one.
        seconds: How long to wait for the first process.

    Attributes:
        port: The port in use.
        while_waiting: A function that is called repeatedly while this process waits for others.

    Raises:
        LaunchError: The port is in use, or no store answers there.
    """

    def __init__(self, place: ProcessPlace, address: str, port: int, seconds: float) -> None:
        from torch._C._distributed_c10d import PrefixStore, TCPStore
        from torch.distributed import DistNetworkError, DistStoreError

        self.place = place
        self._failure: Failure | None = None
        self.while_waiting: Callable[[], None] = lambda: None
        number = next(_numbers) if place.launcher else 0
        serves = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
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
            raise _no_store(error, place, serves, address, port, seconds) from error
        store.set_timeout(timedelta(seconds=_OPERATION_SECONDS))
        self.port = store.port
        # Restarted runs, and the next run of one program, may use the same store: each gets its own names.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = PrefixStore(f"insight/{attempt}/{number}", store)

    def publish(self, name: str, value: Any) -> None:
        """Let all processes read ``value``."""
        self._store.set(name, json.dumps(value))

    def take(self, name: str) -> Any:
        """Wait for the value that a process publishes under ``name``, as long as the run lasts.

        Raises:
            EndedElsewhere: Another process has ended the run.
        """
        while not self._store.check([name]):
            self._wait()
        return json.loads(self._store.get(name))

    def look(self, name: str) -> Any:
        """The value that has been published under ``name``, or ``None``."""
        return json.loads(self._store.get(name)) if self._store.check([name]) else None

    def of_every_rank(self, name: str) -> list[Any]:
        """The values that the processes have published with :meth:`publish_own`, by rank, or ``None``."""
        return [self.look(f"{name}/{rank}") for rank in range(self.place.num_processes)]

    def publish_own(self, name: str, value: Any = True) -> None:
        """Let all processes read the ``value`` of this process."""
        self.publish(f"{name}/{self.place.rank}", value)

    def wait_for_all(self, name: str, seconds: float, option: str = "run.rendezvous_timeout") -> None:
        """Report that this process has reached a point, and wait until all processes have.

        The time-out counts silence, not work: it restarts whenever a new ``pulse`` shows that a missing
        process is working.

        Args:
            name: Name of the point.
            seconds: How long to wait for a sign of life from the missing processes.
            option: The option that holds ``seconds``.

        Raises:
            EndedElsewhere: Another process has ended the run.
            LaunchError: Some processes did not arrive; the message says which.
        """
        self.publish_own(name)
        begun = silent_since = time.monotonic()
        missing, signs = list(range(self.place.num_processes)), None
        is_said = False
        while missing := [rank for rank in missing if not self._store.check([f"{name}/{rank}"])]:
            now = time.monotonic()
            newest = [self.look(f"pulse/{rank}") for rank in missing]
            if newest != signs:
                signs, silent_since = newest, now
            if now - silent_since > seconds:
                number = self.place.num_processes
                raise LaunchError(
                    f"{number - len(missing)} of {number} processes came within {seconds:g} s: "
                    f"{_named(missing)} missing",
                    f"{self.place.how_to_start_all}; raise --{option} if they need longer",
                )
            if not is_said and now - begun > _SECONDS_UNTIL_SAID and not any(newest):
                is_said = True
                say(f"waiting for {_listed(missing)}: {self.place.how_to_start_all}")
            self._wait()

    def fail(self, rank: int, message: str, exit_code: int) -> Failure:
        """End the run for all processes, and return its first failure, which is the one that counts."""
        mine = json.dumps(asdict(Failure(rank, message, exit_code)))
        return Failure(**json.loads(self._store.compare_set(_FAILURE, "", mine)))

    def failure(self) -> Failure | None:
        """The event that has ended the run, or ``None``; it is remembered when the store is gone."""
        if self._failure is None:
            found = self.look(_FAILURE)
            self._failure = Failure(**found) if found else None
        return self._failure

    def _wait(self) -> None:
        failure = self.failure()
        if failure:
            raise EndedElsewhere(failure)
        self.while_waiting()
        time.sleep(_POLL_SECONDS)


def _no_store(
    error: Exception, place: ProcessPlace, serves: bool, address: str, port: int, seconds: float
) -> LaunchError:
    text = " ".join(str(error).split())
    if serves and ("EADDRINUSE" in text or "already in use" in text):
        return LaunchError("is in use on this machine", "set another port", option="MASTER_PORT", value=port)
    if serves and "failed to listen" in text:
        return LaunchError(
            "cannot be listened on", "set one from 1024 to 65535", option="MASTER_PORT", value=port
        )
    return LaunchError(
        f"rank {place.rank}: nobody listens at MASTER_ADDR={address}, MASTER_PORT={port} after {seconds:g} s "
        f"({text[:80]})",
        f"is rank 0 running there? {place.how_to_start_all}; raise --run.rendezvous_timeout for more time",
    )


def _listed(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (", …" if len(ranks) > 8 else "")
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}"


def _named(ranks: list[int]) -> str:
    return f"{_listed(ranks)} {'is' if len(ranks) == 1 else 'are'}"
