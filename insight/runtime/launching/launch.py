"""Bring the processes of a run together and end them together: the first one decides, the others follow."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

from insight.runtime.errors import InsightError, LaunchError, UserError
from insight.runtime.failures import exit_code_of, is_debugging, translate
from insight.runtime.imports import restored_variables
from insight.runtime.launching.meeting import EndedElsewhere, Failure, Meeting
from insight.runtime.launching.rank_watch import Point
from insight.runtime.messages import say
from insight.runtime.processes import ProcessPlace, act_alone, this_process

# How long a failing process waits for the others to read why, and for the processes it started to end.
_SECONDS_TO_LEARN = 5.0
_SECONDS_TO_END = 30.0
# The variables that this file and the choice of threads set for torch and Lightning.
_VARIABLES = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK"),
    *("MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "TORCH_CPP_LOG_LEVEL"),
)
# Words in the errors of collective operations: gloo names its source files.
_BACKENDS = ("gloo", "NCCL")
_PREEMPTED = 143
T = TypeVar("T")


class Launch:
    """The processes of a run, started by torchrun or srun, or by this class.

    If one process fails inside the block, it prints the reason, and the others leave silently with its exit
    code. ``meeting`` is ``None`` for a single process.

    Args:
        command: The command line of a process, without the program: ``["fit", "--config", ...]``.
        seconds: How long the processes wait for one another at the start.
    """

    def __init__(self, command: list[str], seconds: float) -> None:
        act_alone(False)
        self.place = this_process()
        self.meeting: Meeting | None = None
        self._command = command
        self._seconds = seconds
        # A program may train again, with any number of processes.
        self._environment = contextlib.ExitStack()
        self._environment.enter_context(restored_variables(*_VARIABLES))

    @property
    def is_first(self) -> bool:
        """Whether this process decides, prints and writes."""
        return self.place.rank == 0

    def __enter__(self) -> Launch:
        if self.place.num_processes == 1:
            return self
        if self.place.seems_alone:  # said before torch is imported, which takes seconds
            say(f"waiting for the other processes: {self.place.how_to_start_all}")
        try:
            # The first process times out before the others, and names the missing ones.
            seconds = self._seconds + (0 if self.is_first else _SECONDS_TO_LEARN)
            self._meet(*_main_address(self.place)).wait_for_all(Point.ARRIVED, seconds)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._environment:
            if self.meeting is not None:
                try:
                    self._tell(self.meeting, error)
                finally:
                    self._leave(self.meeting, error)

    def start_others(self, num_local: int, num_machines: int) -> None:
        """Start the other processes of a run, unless it has one, or a launcher has started them.

        Lightning would start them when training begins, by running the user's script again, and would
        silently kill all of them if one ended.

        Raises:
            LaunchError: The run needs other machines too, or MASTER_PORT is set and in use.
        """
        if self.place.launcher:
            return
        if num_machines > 1:
            problem = "nothing has started the processes of the other machines"
            remedy = "start all of them with torchrun or srun (docs/cluster.md)"
            raise LaunchError(problem, remedy, option="trainer.num_nodes", value=num_machines)
        if num_local == 1:
            return
        self.place = ProcessPlace(0, num_local, 0, num_local)
        meeting = self._meet("127.0.0.1", _given_port())
        meeting.reach(Point.ARRIVED)
        command = [sys.executable, "-m", "insight", *self._command]
        common = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        for rank in range(1, num_local):
            environment = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            meeting.children[rank] = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)

    def from_first(self, name: str, value: Any = None) -> Any:
        """The first process's ``value``, returned in all processes; it must be plain JSON."""
        if self.meeting is None:
            return value
        if self.is_first:
            self.meeting.publish(name, value)
        return self.meeting.take(name)

    def wait_until_all(
        self, point: Point, seconds: float | None = None, option: str = "run.rendezvous_timeout"
    ) -> None:
        """:meth:`Meeting.wait_for_all`, by default with the time-out of the start."""
        if self.meeting is not None:
            self.meeting.wait_for_all(point, seconds or self._seconds, option)

    def _meet(self, address: str, port: int) -> Meeting:
        # torch's C++ logs stacks, some as errors, when a process is gone or not there yet, and Insight says
        # what happened. torch reads this when imported.
        if not is_debugging():
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
        self.meeting = Meeting(self.place, address, port, self._seconds)
        if self.place.launcher not in ("torchrun", "srun"):
            # Lightning and torch read these variables, which torchrun and srun would have set.
            place = self.place
            ranks = (place.rank, place.num_processes, place.local_rank, place.num_local)
            values = (*ranks, place.rank // place.num_local, address, self.meeting.port)
            os.environ.update(zip(_VARIABLES, map(str, values), strict=False))
        return self.meeting

    def _tell(self, meeting: Meeting, error: BaseException | None) -> None:
        """Tell the others, or learn what they know; raises the error that this process must print."""
        if error is None or isinstance(error, EndedElsewhere) or _is_interruption(error):
            return  # another process has printed the reason already
        known = translate(error)
        if known is None and _is_lost(error):
            raise _cause(meeting, error) from error
        rank = self.place.rank
        exit_code = exit_code_of(known or error)
        try:
            if isinstance(error, UserError) and not isinstance(error, LaunchError) and not self.is_first:
                # The first process probably finds the same mistake, and reports it for all.
                _within(_SECONDS_TO_LEARN, lambda: meeting.failure() or meeting.state(0).point >= Point.READY)
            first = meeting.fail(Failure(rank, str(known or error), exit_code))
        except (RuntimeError, OSError):
            return  # the process that served the store is gone
        if first.rank != rank:
            raise EndedElsewhere(first) from error
        if known is not None and not self.is_first:
            named = InsightError(f"rank {rank}: {known.problem}", known.remedy)
            named.exit_code = exit_code
            raise named from error

    def _leave(self, meeting: Meeting, error: BaseException | None) -> None:
        """Let the others read what this process wrote, then end the processes that were started here."""
        import torch.distributed

        # A program that trains again starts other processes with a new group. Under a launcher the processes
        # stay, and a second group of the same name would find the addresses of the first in its store.
        if error is None and not self.place.launcher and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        in_order = error is None or _is_interruption(error)
        deadline = time.monotonic() + (_SECONDS_TO_END if in_order else _SECONDS_TO_LEARN)
        with contextlib.suppress(RuntimeError, OSError):  # the first process is gone
            meeting.reach(Point.LEFT)
            for rank, child in meeting.children.items():
                # Processes that are still importing have nothing to lose and would delay the message.
                if not in_order and meeting.state(rank).point < Point.ARRIVED:
                    child.kill()
            # A launcher ends the others as soon as one has ended, but the first still has a report to write.
            if self.is_first or (error is not None and in_order):
                _within(deadline - time.monotonic(), lambda: self._may_go(meeting))
        for child in meeting.children.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, deadline - time.monotonic()))
        failure = meeting.check_children() if error is None and meeting.children else None
        meeting.close()
        self.meeting = None
        if failure:
            raise EndedElsewhere(failure)

    def _may_go(self, meeting: Meeting) -> bool:
        """Whether the first process has left; in the first, whether no other one needs the store."""
        ended = {rank for rank, child in meeting.children.items() if child.poll() is not None}
        others = set(range(1, self.place.num_processes)) - ended if self.is_first else {0}
        # Processes that never arrived do not need it.
        return all(meeting.state(rank).point in (Point.NONE, Point.LEFT) for rank in others)


def _within(seconds: float, condition: Callable[[], T]) -> T:
    """Wait until a condition holds, but no longer than some seconds; returns what it is then."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _cause(meeting: Meeting, error: BaseException) -> BaseException:
    """The error that ended another process and made a collective operation fail here."""
    try:
        failure = _within(_SECONDS_TO_LEARN, meeting.check_children)
    except (RuntimeError, OSError):
        # Had the first process ended regularly, it would have waited until this one knew the reason.
        return InsightError(
            "rank 0 is gone and has not said why: it was killed, or its machine is gone",
            "was its memory short? go on with --resume auto",
        )
    if failure:
        return EndedElsewhere(failure)
    return InsightError(
        f"another process is gone ({str(error).splitlines()[0][:160]})",
        "see what the others said; go on with --resume auto",
    )


def _is_lost(error: BaseException) -> bool:
    """Whether a collective operation or torch's store has found that another process is gone."""
    from torch.distributed import DistError

    is_relevant = isinstance(error, (RuntimeError, OSError))
    return is_relevant and (isinstance(error, DistError) or any(name in str(error) for name in _BACKENDS))


def _is_interruption(error: BaseException) -> bool:
    """Whether all processes agreed to stop, as ``TrainingInterrupted`` says."""
    return getattr(error, "aborted", True) is False


def _main_address(place: ProcessPlace) -> tuple[str, int]:
    if place.launcher == "srun":
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

        try:
            slurm = SLURMEnvironment()
            return slurm.main_address, slurm.main_port
        except (RuntimeError, ValueError) as error:
            raise LaunchError(f"SLURM: {' '.join(str(error).split())}", "see docs/cluster.md") from error
    address, port = os.environ.get("MASTER_ADDR"), _given_port()
    if not address or not port:
        raise LaunchError(
            f"RANK={place.rank}, WORLD_SIZE={place.num_processes} without MASTER_ADDR and MASTER_PORT",
            "set both to the machine of rank 0, or start with torchrun",
        )
    return address, port


def _given_port() -> int:
    text = os.environ.get("MASTER_PORT", "0")
    if not (text.isdecimal() and int(text) < 2**16):
        remedy = "use a number from 1024 to 65535"
        raise LaunchError("is not a port", remedy, option="MASTER_PORT", value=text)
    return int(text)


@contextlib.contextmanager
def preemptible(name: str = "SIGUSR1") -> Iterator[None]:
    """Make a signal inside the block end the process with exit code 143, as SIGTERM does to ``fit``.

    Otherwise the exit code of SIGUSR1 would be 138, which no job script takes as a reason to start again.
    Once training begins, ``GracefulInterrupt`` handles the signal.
    """
    number = getattr(signal, name, None)
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(_PREEMPTED)

    before = signal.signal(number, leave)
    try:
        yield
    finally:
        signal.signal(number, before)
