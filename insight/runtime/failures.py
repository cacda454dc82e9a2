"""The end of a command that fails: one line with the problem and its remedy, and the exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Iterator

from insight.runtime.errors import ConfigError, InsightError, OutputError, SeveralMistakesError
from insight.runtime.files import FULL, READ_ONLY, output_error
from insight.runtime.imports import allowed_packages, restored_variables
from insight.runtime.messages import plain_line, print_line

_DEBUG_VARIABLE = "INSIGHT_DEBUG"
# Words in torch's errors for a failed CPU or CUDA allocation, where it does not raise an OutOfMemoryError.
_OUT_OF_MEMORY = (
    *("can't allocate memory", "out of memory", "not enough memory", "bad_alloc"),
    "CUBLAS_STATUS_ALLOC_FAILED",
)


@contextlib.contextmanager
def debugging(is_on: bool) -> Iterator[None]:
    """Show tracebacks inside the block and in the processes that are started there, if ``is_on``."""
    with restored_variables(_DEBUG_VARIABLE):
        if is_on:
            os.environ[_DEBUG_VARIABLE] = "1"
        yield


def is_debugging() -> bool:
    """Whether the user wants to see tracebacks."""
    return bool(os.environ.get(_DEBUG_VARIABLE))


def report_failure(error: BaseException, debug: bool = False) -> int:
    """Print one line about ``error`` on stderr, and return the exit code of the process.

    The traceback comes first if ``debug`` is set or inside :func:`debugging`.
    """
    if isinstance(error, SystemExit):
        if not (error.code is None or isinstance(error.code, int)):
            print_line(str(error.code))
        return exit_code_of(error)
    debug = debug or is_debugging()
    if isinstance(error, BrokenPipeError):
        # The reader of the pipe (`| head`) is gone. Python flushes stdout at exit and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # the exit code of a process that SIGPIPE ends
    if debug:
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        print_line("; ".join(["interrupted", *getattr(error, "__notes__", ())]))
        return 130
    known = translate(error)
    if known is None:
        how = "" if debug else "; --debug shows the traceback"
        place = _place_in_own_code(error)
        whose = f"raised in your own code, {place}" if place else "this is a bug in Insight"
        print_line(f"error: {type(error).__name__}: {error}: {whose}{how}")
    for mistake in known.errors if isinstance(known, SeveralMistakesError) else [known] if known else ():
        print_line(f"error: {mistake}")
    return exit_code_of(known or error)


def exit_code_of(error: BaseException) -> int:
    """The exit code of a process that ``error`` ends."""
    if isinstance(error, InsightError):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def translate(error: BaseException) -> InsightError | None:
    """``error`` as an :class:`InsightError`, or ``None`` if it is of an unforeseen kind."""
    if isinstance(error, InsightError):
        return error
    if isinstance(error, OSError) and error.errno in FULL:
        return output_error(error, error.filename or "output")
    if isinstance(error, OSError) and error.errno in READ_ONLY:
        problem = f"{error.filename or 'output'}: you may not use this place"
        return OutputError(problem, "change its permissions or choose another")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        problem = f"{str(error.filename)[:60]}...: the name is too long for a file"
        return ConfigError(problem, "use a shorter one")
    if is_out_of_memory(error):
        remedy = "lower data.batch_size, data.sequence_length or the network's size"
        return InsightError("out of memory", remedy)
    # Lightning raises this class for wrong Trainer options. Importing it would take seconds.
    if type(error).__name__ == "MisconfigurationException":
        return ConfigError(f"trainer: {plain_line(str(error))}", "change the option in --config or beside it")
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device."""
    text = str(error).splitlines()[0] if str(error) else ""
    return isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)


def _place_in_own_code(error: BaseException) -> str:
    """File and line of the innermost function in the user's own packages that ``error`` came through."""
    packages = (*getattr(error, "own_packages", ()), *allowed_packages())
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__", "")).split(".")[0] in packages:
            found = f"{frame.f_code.co_filename}, line {line}"
    return found
