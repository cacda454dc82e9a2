"""One worker of a :class:`~insight.data.encoding.executors.ProcessPool`: an item in, a result out.

Requests and replies are pickles on standard input and output, each as bytes inside of another pickle, so that
an unreadable one does not affect the next. Printed text goes to standard error. The modules named on the
command line are imported before the first request.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO

from insight.runtime.errors import InsightError

_LOOK_SECONDS = 0.5


def write_message(pipe: IO[bytes], data: bytes) -> None:
    """Send a message; an ``OSError`` says that the other side has closed the pipe."""
    pickle.dump(data, pipe)
    pipe.flush()


def read_message(pipe: IO[bytes]) -> bytes:
    """Receive the next message; an ``EOFError`` says that the other side has closed the pipe."""
    try:
        return bytes(pickle.load(pipe))
    except pickle.UnpicklingError as error:  # It was closed in the middle of a message.
        raise EOFError("the pipe has ended") from error


def main(modules: Sequence[str]) -> None:
    """Import the modules and serve requests until standard input or the parent process ends."""
    # Ctrl-C reaches the whole process group; the parent process decides how to react.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for name in modules:
        with contextlib.suppress(ImportError):  # A request that needs the module will report it.
            importlib.import_module(name)
    # When the pipe has ended, no process waits for replies or errors.
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            write_message(replies, _reply_to(read_message(sys.stdin.buffer)))


def _reply_to(request: bytes) -> bytes:
    """Whether the request succeeded, and its result or its error, which may be unfit for pickling."""
    try:
        function, item = pickle.loads(request)
        return pickle.dumps((True, function(item)))
    except Exception as error:
        with contextlib.suppress(Exception):
            reply = pickle.dumps((False, error))
            if str(pickle.loads(reply)[1]) == str(error):
                return reply
        return pickle.dumps((False, InsightError(f"{type(error).__name__}: {error}")))


def _end_with(parent: int) -> None:
    """End with the parent; otherwise the worker would write into a folder that others have cleared."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
