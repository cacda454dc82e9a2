"""Bring the processes of a run together and end them together: the first one decides, the others follow."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from insight.runtime.errors import InsightError, LaunchError, UserError
from insight.runtime.failures import is_debugging, translate
from insight.runtime.launching.meeting import EndedElsewhere, Meeting
from insight.runtime.launching.rank_watch import RankWatch
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


class Launch:
    """The processes of a run, started by torchrun or srun, or by this class.

    If one process fails inside the block, it prints the reason, and the others leave silently with its exit
    code.

    Args:
        command: The command line of a process, without the program: ``["fit", "--config", ...]``.
        seconds: How long the processes wait for one another at the start.

    Attributes:
        place: The place of this process.
        meeting: The store of the run; ``None`` for a single process.
        watch: The watch over the processes of the run; ``None`` for a single process.
    """

    def __init__(self, command: list[str], seconds: float) -> None:
        act_alone(False)
        self.place = this_process()
        self.meeting: Meeting | None = None
        self.watch: RankWatch | None = None
        self._command = command
        self._seconds = seconds
        self._children: list[subprocess.Popen[bytes]] = []
        self._environment_before = {name: os.environ.get(name) for name in _VARIABLES}

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
            self._meet(*_main_address(self.place))
            assert self.meeting is not None
            # The first process times out before the others, and names the missing ones.
            self.meeting.wait_for_all("arrived", self._seconds + (0 if self.is_first else _SECONDS_TO_LEARN))
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.meeting is not None and error is not None:
                self._end_with(self.meeting, error)
        finally:
            try:
                self._leave(error)
            finally:
                self._restore_environment()

    def start_others(self, num_local: int) -> None:
        """Start the other processes of this machine, ``num_local`` with this one, unless a launcher has.

        Lightning would start them when training begins, by running the user's script again, and would
        silently kill all of them if one ended.

        Raises:
            LaunchError: MASTER_PORT is set and in use.
        """
        if self.place.launcher or num_local == 1:
            return
        self.place = ProcessPlace(0, num_local, 0, num_local)
        self._meet("127.0.0.1", _given_port())
        assert self.meeting is not None
        self.meeting.while_waiting = self._look_after_children
        self.meeting.publish_own("arrived")
        command = [sys.executable, "-m", "insight", *self._command]
        for rank in range(1, num_local):
            environment = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
            self._children.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL))

    def from_first(self, name: str, value: Any = None) -> Any:
        """The first process's ``value``, returned in all processes; it must be plain JSON.

        Raises:
            EndedElsewhere: Another process has ended the run.
        """
        if self.meeting is None:
            return value
        if self.is_first:
            self.meeting.publish(name, value)
        return self.meeting.take(name)

    def wait_until_all(self, point: str, seconds: float | None = None, option: str = "") -> None:
        """Wait until every process has reached a point: ``"arrived"`` or ``"ready"``.

        Args:
            point: Name of the point.
            seconds: How long the missing processes may be silent; by default as long as at the start.
            option: The option that holds ``seconds``.

        Raises:
            LaunchError: Some processes did not arrive.
            EndedElsewhere: One of them failed.
        """
        if self.meeting is not None:
            self.meeting.wait_for_all(point, seconds or self._seconds, option or "run.rendezvous_timeout")

    # ------------------------------------------------------------------ beginning

    def _meet(self, address: str, port: int) -> None:
        # torch's C++ logs stacks, some as errors, when a process is gone or not there yet, and Insight says
        # what happened. torch reads this when imported.
        if not is_debugging():
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
        self.meeting = Meeting(self.place, address, port, self._seconds)
        self.watch = RankWatch(self.meeting, self._kill_children)
        if self.place.launcher in ("torchrun", "srun"):
            return
        # Lightning and torch read these variables, which torchrun and srun would have set.
        values = {
            "RANK": self.place.rank,
            "WORLD_SIZE": self.place.num_processes,
            "LOCAL_RANK": self.place.local_rank,
            "LOCAL_WORLD_SIZE": self.place.num_local,
            "NODE_RANK": self.place.rank // self.place.num_local,
            "MASTER_ADDR": address,
            "MASTER_PORT": self.meeting.port,
        }
        os.environ.update({name: str(value) for name, value in values.items()})

    # ------------------------------------------------------------------ processes that were started here

    def _look_after_children(self) -> None:
        assert self.meeting is not None
        dead = self._dead_child()
        if dead is None:
            return
        time.sleep(0.2)  # the last message of the process may still be on its way
        failure = self.meeting.failure()
        if failure:
            raise EndedElsewhere(failure)
        raise dead

    def _dead_child(self) -> InsightError | None:
        """The error for a process started here that ended badly, or ``None``."""
        for rank, child in enumerate(self._children, start=1):
            code = child.poll()
            if code is not None and code < 0:
                name = signal.Signals(-code).name
                remedy = "was its memory short? " if name == "SIGKILL" else ""
                return InsightError(f"rank {rank} was ended by {name}", f"{remedy}go on with --resume auto")
            if code:
                return InsightError(f"rank {rank} ended with exit code {code}", "see what it said")
        return None

    def _kill_children(self) -> None:
        for child in self._children:
            with contextlib.suppress(OSError):
                child.kill()

    # ------------------------------------------------------------------ ending

    def _end_with(self, meeting: Meeting, error: BaseException) -> None:
        """Tell the others, or learn what they know; raises the error that this process must print."""
        if isinstance(error, EndedElsewhere) or _is_interruption(error):
            return  # another process has printed the reason already
        known = translate(error)
        if known is None and isinstance(error, (RuntimeError, OSError)):
            self._raise_cause(meeting, error)
        try:
            if isinstance(error, UserError) and not isinstance(error, LaunchError) and not self.is_first:
                self._let_first_say_it(meeting)
            exit_code = _exit_code(known or error)
            first = meeting.fail(self.place.rank, str(known or error), exit_code)
        except (RuntimeError, OSError):
            return  # the process that served the store is gone
        if first.rank != self.place.rank:
            raise EndedElsewhere(first) from error
        if known is not None and not self.is_first:
            named = InsightError(f"rank {self.place.rank}: {known.problem}", known.remedy)
            named.exit_code = exit_code
            raise named from error

    def _let_first_say_it(self, meeting: Meeting) -> None:
        """Give the first process, which probably finds the same mistake, time to report it for all."""
        deadline = time.monotonic() + _SECONDS_TO_LEARN
        while time.monotonic() < deadline and not (meeting.failure() or meeting.look("ready/0")):
            time.sleep(0.1)

    def _raise_cause(self, meeting: Meeting, error: BaseException) -> None:
        """Raise the error that ended another process, if it made a collective operation fail here."""
        deadline = time.monotonic() + _SECONDS_TO_LEARN
        while _is_lost(error):
            try:
                failure = meeting.failure()
            except (RuntimeError, OSError):
                # Had the first process ended regularly, it would have waited until this one knew the reason.
                raise InsightError(
                    "rank 0 is gone and has not said why: it was killed, or its machine is gone",
                    "was its memory short? go on with --resume auto",
                ) from error
            if failure and failure.rank != self.place.rank:
                raise EndedElsewhere(failure) from error
            dead = self._dead_child()
            if dead is not None:
                raise dead from error
            if time.monotonic() > deadline:
                raise InsightError(
                    f"another process is gone ({str(error).splitlines()[0][:160]})",
                    "see what the others said; go on with --resume auto",
                ) from error
            time.sleep(0.1)

    def _leave(self, error: BaseException | None) -> None:
        """Let the others read what this process wrote, then end the processes that were started here."""
        if self.meeting is None:
            return
        if error is None and not self.place.launcher:
            _destroy_group()
        in_order = error is None or _is_interruption(error)
        if not in_order:
            self._kill_children_on_their_way()
        deadline = time.monotonic() + (_SECONDS_TO_END if in_order else _SECONDS_TO_LEARN)
        with contextlib.suppress(RuntimeError, OSError):  # the first process is gone
            self.meeting.publish_own("left")
            # A launcher ends the others as soon as one has ended, but the first still has a report to write.
            while time.monotonic() < deadline and not self._may_go(error is not None and in_order):
                time.sleep(0.05)
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, deadline - time.monotonic()))
        dead = self._dead_child()
        self._kill_children()
        if self.watch is not None:
            self.watch.stop()
        self.meeting = self.watch = None
        if error is None and dead is not None:
            raise dead

    def _kill_children_on_their_way(self) -> None:
        """Kill those that are still importing: they have nothing to lose and would delay the message."""
        if self._children and self.meeting is not None:
            with contextlib.suppress(RuntimeError, OSError):
                arrived = self.meeting.of_every_rank("arrived")[1:]
                for child, has_arrived in zip(self._children, arrived, strict=True):
                    if not has_arrived:
                        child.kill()

    def _may_go(self, waits_for_first: bool) -> bool:
        assert self.meeting is not None
        if not self.is_first:
            return not waits_for_first or self.meeting.look("left/0") is not None
        # The others need the store until they have left or ended. Those that never arrived do not.
        pairs = zip(self.meeting.of_every_rank("left"), self.meeting.of_every_rank("arrived"), strict=True)
        gone = [bool(left) or not arrived for left, arrived in pairs]
        for rank, child in enumerate(self._children, start=1):
            gone[rank] = child.poll() is not None
        return all(gone)

    def _restore_environment(self) -> None:
        """Restore the environment, so that a program can train again with any number of processes."""
        for name, value in self._environment_before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _destroy_group() -> None:
    """End torch's process group, because a program that trains again starts other processes with a new group.

    Under a launcher the processes stay, and so does their group: in its store, a second group of the same
    name would find the addresses of the first.
    """
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _is_lost(error: BaseException) -> bool:
    """Whether a collective operation or torch's store has found that another process is gone."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or any(name in str(error) for name in _BACKENDS)


def _is_interruption(error: BaseException) -> bool:
    """Whether all processes agreed to stop, as ``TrainingInterrupted`` says."""
    return getattr(error, "aborted", True) is False


def _exit_code(error: BaseException) -> int:
    if isinstance(error, InsightError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    return error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1


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
        raise LaunchError(
            "is not a port", "use a number from 1024 to 65535", option="MASTER_PORT", value=text
        )
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
