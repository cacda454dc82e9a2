"""Runs each measurement in a separate process: launches it, waits with a limit, reads its result."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from benchmarks.peers.protocol import RESULT_MARK, STARTED_AT

ROOT = Path(__file__).resolve().parent.parent
_POLL_SECONDS = 0.05
# No measurement may access the network, and tokenizers must not fork under torch's threads.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class Outcome:
    """The end of a measured process.

    Args:
        result: Its result; ``None`` if it printed none.
        seconds: Wall time from launch to end.
        started: ``time.time()`` at launch.
        exit_code: Its exit code; ``None`` if it was killed at the limit.
        peak_bytes: Peak resident memory of the process and its children together, sampled.
        log: File with its output.
    """

    result: dict[str, Any] | None
    seconds: float
    started: float
    exit_code: int | None
    peak_bytes: int
    log: Path

    def problem(self) -> str:
        """The problem in one line, with the last line of the output."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        ending = "out of time" if self.exit_code is None else f"exit code {self.exit_code}"
        return (
            f"{ending} after {self.seconds:.0f} s: {lines[-1][:200] if lines else 'no output'} ({self.log})"
        )


def run_process(
    command: Sequence[str], log: Path, limit: float, environment: Mapping[str, str] | None = None
) -> Outcome:
    """Run ``command`` in the repository root until it ends or ``limit`` seconds are over.

    Args:
        command: Program and arguments.
        log: File for its output; the last line that starts with the result mark is its result.
        limit: Seconds after which it and its children are killed.
        environment: Variables to add.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.time()
    variables = {**os.environ, **_ENVIRONMENT, **(environment or {}), STARTED_AT: repr(started)}
    with log.open("w", encoding="utf-8") as output:
        output.write(f"$ {shlex.join(command)}\n")
        output.flush()
        with _launch(command, variables, output) as process:
            peak = _wait(process, started + limit)
            seconds, exit_code = time.time() - started, process.poll()  # None at the limit
    return Outcome(_read_result(log), seconds, started, exit_code, peak, log)


def module_command(python: Path | str, module: str, *arguments: str) -> list[str]:
    """``python -m module arguments``; the process runs in the repository root."""
    return [str(python), "-m", module, *arguments]


def find_python(path: Path) -> Path:
    """The peers' interpreter.

    Raises:
        SystemExit: It does not exist.
    """
    # The link is not resolved, since Python finds its virtual environment by it.
    found = path if path.is_absolute() else ROOT / path
    if not found.exists():
        raise SystemExit(f"--peers-python={path} does not exist: run `make bench-env`, or --only insight")
    return found


@contextlib.contextmanager
def _launch(
    command: Sequence[str], variables: Mapping[str, str], output: IO[str]
) -> Iterator[subprocess.Popen[bytes]]:
    # A benchmark may be ended with SIGTERM, e.g. by `timeout`; its measured process must not outlive it.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    process = subprocess.Popen(
        list(command),
        cwd=ROOT,
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # Ctrl-C and the limit get here as well; compilers that the process started are killed with it.
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        signal.signal(signal.SIGTERM, before)


def _wait(process: subprocess.Popen[bytes], end: float) -> int:
    watched = psutil.Process(process.pid)
    peak = 0
    while process.poll() is None and time.time() < end:
        peak = max(peak, _resident_bytes(watched))
        time.sleep(_POLL_SECONDS)
    return peak


def _resident_bytes(process: psutil.Process) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
    return total


def _read_result(log: Path) -> dict[str, Any] | None:
    for line in reversed(log.read_text(encoding="utf-8", errors="replace").splitlines()):
        if line.startswith(RESULT_MARK):
            result: dict[str, Any] = json.loads(line.removeprefix(RESULT_MARK))
            return result
    return None
