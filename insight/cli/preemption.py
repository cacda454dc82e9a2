"""Being told to make room before training has begun, when there is nothing to save yet."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_PREEMPTED = 143


@contextlib.contextmanager
def preemptible() -> Iterator[None]:
    """Inside the block SIGUSR1 ends the process with exit code 143, as SIGTERM would.

    Left alone it would end it with 138, which no job script takes for a reason to start again. Once training
    begins, ``GracefulInterrupt`` takes over.
    """
    if not hasattr(signal, "SIGUSR1") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGUSR1, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(_PREEMPTED)
