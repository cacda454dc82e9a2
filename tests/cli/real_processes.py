"""Real commands in processes of their own, with a deadline, and nothing left behind.

Each takes seconds to import torch and lightning. Where a test is about what several processes do, and not
about how they begin, ``WARM_INSIGHT`` stands for ``python -m insight`` in a process forked after the imports.
What libraries read in the environment at their import, such as torch its level of logging, stays as it was.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line import Outcome
from warm_processes import start_warm

from insight.cli.main import run
from insight.reporting import read_metrics

SECONDS = 150
PYTHON_INSIGHT = (sys.executable, "-m", "insight")
WARM_INSIGHT = ("insight after its imports",)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
# Of a launcher above the tests, or left from others.
_VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "NODE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)


class Forked:
    """A command that begins with everything imported, with the methods of a ``Popen`` that are used here."""

    def __init__(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        self._process = start_warm(_run_forked, list(arguments), folder, dict(environment), log)
        assert self._process.pid
        self.pid = self._process.pid

    def wait(self, seconds: float) -> int:
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(WARM_INSIGHT, seconds)
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _run_forked(arguments: list[str], folder: Path, environment: dict[str, str], log: Path) -> None:
    os.setsid()
    os.environ.clear()
    os.environ |= environment
    os.chdir(folder)
    for stream, path in ((sys.stdout, log.with_suffix(".out")), (sys.stderr, log)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream.fileno())
    sys.argv = ["insight", *arguments]
    run()


@dataclass
class Started:
    """A running command.

    Args:
        process: The process, first of a session of its own.
        log: Where its standard error goes.
    """

    process: subprocess.Popen[bytes] | Forked
    log: Path

    def wait(self, seconds: float = SECONDS) -> Outcome:
        """What it did; fails the test if it takes too long."""
        code = self.process.wait(seconds)
        return Outcome(code, self.log.with_suffix(".out").read_text(), self.log.read_text())

    def kill(self) -> None:
        """End it and everything that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@contextlib.contextmanager
def started(
    command: Sequence[str], folder: Path, name: str, environment: Mapping[str, str] | None = None
) -> Iterator[Started]:
    """Run a command in a folder while the block lasts."""
    log = folder / f"{name}.err"
    inherited = {key: value for key, value in os.environ.items() if key not in _VARIABLES}
    variables = {**inherited, **(environment or {})}
    if command[0] in WARM_INSIGHT:
        process: Any = Forked(command[1:], folder, variables, log)
    else:
        with log.open("wb") as err, log.with_suffix(".out").open("wb") as out:
            process = subprocess.Popen(
                command, cwd=folder, env=variables, stdout=out, stderr=err, start_new_session=True
            )
    running = Started(process, log)
    try:
        yield running
    finally:
        running.kill()


def run_together(
    commands: Sequence[Sequence[str]], folder: Path, environments: Sequence[Mapping[str, str]]
) -> list[Outcome]:
    """Run commands at the same time and wait for all."""
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(started(command, folder, f"process-{rank}", environment))
            for rank, (command, environment) in enumerate(zip(commands, environments, strict=True))
        ]
        return [process.wait() for process in running]


def ranks(num_processes: int) -> list[dict[str, str]]:
    """Environments of processes that a launcher of somebody's own starts on this machine."""
    port = str(free_port())
    return [
        {
            "RANK": str(rank),
            "WORLD_SIZE": str(num_processes),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(num_processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        for rank in range(num_processes)
    ]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until_there(path: Path, running: Started, seconds: float = SECONDS) -> None:
    """Wait for a file that a running command writes."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert running.process.poll() is None, running.log.read_text()
        assert time.monotonic() < deadline, running.log.read_text()
        time.sleep(0.05)


def losses(run: Path, name: str = "train/loss") -> dict[int, float]:
    """What a run has logged, by step."""
    return {record["step"]: record[name] for record in read_metrics(run) if name in record}
