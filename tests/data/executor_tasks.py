"""Functions that the tests of executors run in other processes, which import them from here."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

from insight.runtime.errors import DataError


class Call(NamedTuple):
    """What a function is told.

    Attributes:
        number: Comes back.
        folder: Where it leaves what others see.
    """

    number: int
    folder: str


def process_of(call: Call) -> tuple[int, int]:
    """The number, and the process it was in."""
    time.sleep(0.02)
    return call.number, os.getpid()


def fail_at_three(call: Call) -> int:
    """Fails as the code of this project does."""
    if call.number == 3:
        raise DataError(f"file{call.number}.txt: byte 7 is not UTF-8", "convert it")
    return call.number


def fail_strangely(call: Call) -> int:
    """Fails with an exception that does not travel."""

    class LocalError(Exception):
        pass

    raise LocalError(f"number {call.number}")


def die_once(call: Call) -> int:
    """The first time that an odd number comes its process is killed."""
    mark = Path(call.folder) / str(call.number)
    if call.number % 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return call.number


def die(call: Call) -> int:
    """Its process is killed."""
    os.kill(os.getpid(), signal.SIGKILL)
    return call.number


def wait(call: Call) -> int:
    """Says in which process it is, then takes a minute."""
    (Path(call.folder) / f"{call.number}.pid").write_text(str(os.getpid()))
    time.sleep(60)
    return call.number


def has_loaded_wave(call: Call) -> bool:
    """Whether its process has loaded a module that nothing here needs."""
    return "wave" in sys.modules


def print_and_return(call: Call) -> int:
    """What is printed must not mix with the results."""
    print("printed", flush=True)
    os.write(1, b"written\n")
    return call.number
