"""The processes of one run: started by torchrun or srun, or here; the first decides, the others follow."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from insight.api.config_files import early_option
from insight.api.run_config import RunConfig
from insight.runtime.errors import InsightError, LaunchError
from insight.runtime.failures import translate
from insight.runtime.launching.meeting import EndedElsewhere, Failure, Meeting
from insight.runtime.processes import ProcessPlace, this_process

if TYPE_CHECKING:
    from insight.api.placement import Placement


# How long a process that fails waits for the others to learn of it, and those that were started here to end.
_SECONDS_TO_LEARN = 5.0
_SECONDS_TO_END = 30.0
# What this file and the number of threads set for torch and Lightning.
_VARIABLES = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK"),
    *("MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS"),
)
# In what collective operations say: gloo names its source files.
_BACKENDS = ("gloo", "NCCL")


class Launch:
    """Brings the processes of a run together, and ends them together.

    Inside the block one process fails for all: it says why, the others leave without a word and with its
    exit code.

    Args:
        arguments: The command line of ``insight fit``.

    Attributes:
        place: Of this process.
        meeting: Store of the run; ``None`` while there is one process.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.place = this_process()
        self.meeting: Meeting | None = None
        self._arguments = arguments
        self._children: list[subprocess.Popen[bytes]] = []
        self._environment_before = {name: os.environ.get(name) for name in _VARIABLES}

    @property
    def is_first(self) -> bool:
        """Whether this process decides, speaks and writes."""
        return self.place.rank == 0

    def __enter__(self) -> Launch:
        if self.place.num_processes == 1:
            return self
        try:
            seconds = _rendezvous_timeout(self._arguments)
            address, port = _main_address(self.place)
            self._tell_libraries(self.place, address, port)
            self.meeting = Meeting(self.place, address, port, seconds)
            # The first process gives up first, and says who is missing.
            self.meeting.wait_for_all("arrived", seconds + (0 if self.is_first else _SECONDS_TO_LEARN))
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

    def plan(self) -> dict[str, Any] | None:
        """What the first process decided; ``None`` in the first process itself."""
        if self.meeting is None or self.is_first:
            return None
        import insight.api.configuration  # noqa: F401 (takes seconds, in which the first process decides)

        plan: dict[str, Any] = self.meeting.take("plan")
        return plan

    def start_others(self, placement: Placement) -> None:
        """Start the other processes of this machine, if nobody has.

        Lightning would do so when training begins, by running the user's script again, and would answer the
        end of one of them by killing all of them without a word.

        Raises:
            LaunchError: MASTER_PORT is set and in use, or the run wants other machines too.
        """
        if self.place.launcher or placement.num_processes == 1:
            return
        if placement.num_machines > 1:
            raise LaunchError(
                f"trainer.num_nodes={placement.num_machines}: nothing has started the processes of the other "
                "machines",
                "start all of them with torchrun or srun (docs/cluster.md)",
            )
        self.place = ProcessPlace(0, placement.num_local, 0, placement.num_local)
        self.meeting = Meeting(self.place, "127.0.0.1", _given_port(), _rendezvous_timeout(self._arguments))
        self.meeting.while_waiting = self._look_after_children
        self.meeting.publish_own("arrived")
        self._tell_libraries(self.place, "127.0.0.1", self.meeting.port)
        command = [sys.executable, "-m", "insight", "fit", *self._arguments]
        for rank in range(1, placement.num_local):
            environment = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
            self._children.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL))

    def share(self, plan: dict[str, Any], seconds: float) -> None:
        """Give the decisions of the first process to the others, once all are there.

        Raises:
            LaunchError: Some did not come within ``seconds``.
        """
        if self.meeting is not None and self.is_first:
            self.meeting.wait_for_all("arrived", seconds)
            self.meeting.publish("plan", plan)

    def everyone_is_ready(self, seconds: float | None) -> None:
        """Wait until each process could begin to train.

        Args:
            seconds: How long at most; ``None`` for as long as it takes.

        Raises:
            LaunchError: Some were not ready within ``seconds``.
            EndedElsewhere: One of them failed.
        """
        if self.meeting is not None:
            self.meeting.wait_for_all("ready", seconds or math.inf, "run.hang_timeout")

    def from_first(self, name: str, value: str | None) -> str | None:
        """The ``value`` of the first process, in all of them."""
        if self.meeting is None:
            return value
        if self.is_first:
            self.meeting.publish(name, value)
        found: str | None = self.meeting.take(name)
        return found

    def kill_children(self) -> None:
        """End the processes that were started here, whatever they do."""
        for child in self._children:
            with contextlib.suppress(OSError):
                child.kill()

    def _look_after_children(self) -> None:
        assert self.meeting is not None
        dead = self._dead_child()
        if dead is None:
            return
        time.sleep(0.2)  # what it said last may still be on its way
        failure = self.meeting.failure()
        if failure:
            raise EndedElsewhere(failure)
        raise dead

    def _dead_child(self) -> InsightError | None:
        """What can be said of a process started here that ended badly, if one did."""
        for rank, child in enumerate(self._children, start=1):
            code = child.poll()
            if code is not None and code < 0:
                name = signal.Signals(-code).name
                remedy = "was its memory short? " if name == "SIGKILL" else ""
                return InsightError(f"rank {rank} was ended by {name}", f"{remedy}go on with --resume auto")
            if code:
                return InsightError(f"rank {rank} ended with exit code {code}", "see what it said")
        return None

    def _end_with(self, meeting: Meeting, error: BaseException) -> None:
        """Tell the others, or find out what they know; raises what this process is to say instead."""
        if isinstance(error, EndedElsewhere) or _is_interruption(error):
            return  # said already
        known = translate(error)
        if known is None and isinstance(error, (RuntimeError, OSError)):
            self._raise_cause(meeting, error)
        try:
            first = meeting.fail(self.place.rank, str(known or error), _exit_code(known or error))
        except (RuntimeError, OSError):
            return  # the process that served the store is gone
        if first.rank != self.place.rank:
            raise EndedElsewhere(first) from error
        if known is not None and not self.is_first:
            named = InsightError(f"rank {self.place.rank}: {known.problem}", known.remedy)
            named.exit_code = known.exit_code
            raise named from error

    def _raise_cause(self, meeting: Meeting, error: BaseException) -> None:
        """Raise what ended another process, if that is why a collective operation failed here."""
        deadline = time.monotonic() + _SECONDS_TO_LEARN
        while _is_lost(error):
            try:
                failure = meeting.failure()
            except (RuntimeError, OSError):  # the process that served the store is gone
                failure = Failure(0, "gone", 1)
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
        """Let the others read what this process wrote, then end what was started here."""
        if self.meeting is None:
            return
        if error is None and not self.place.launcher:
            self._destroy_group()
        with contextlib.suppress(RuntimeError, OSError):  # the first process is gone
            self.meeting.publish_own("left")
        in_order = error is None or _is_interruption(error)
        if not in_order:
            self._kill_children_on_their_way()
        deadline = time.monotonic() + (_SECONDS_TO_END if in_order else _SECONDS_TO_LEARN)
        # A launcher ends the others as soon as one has ended; the first still has a report to write.
        with contextlib.suppress(RuntimeError, OSError):
            while time.monotonic() < deadline and not self._may_go(error is not None and in_order):
                time.sleep(0.05)
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, deadline - time.monotonic()))
        dead = self._dead_child()
        self.kill_children()
        self.meeting = None
        if error is None and dead is not None:
            raise dead

    def _kill_children_on_their_way(self) -> None:
        """Those that still import have nothing to lose, and would keep the message waiting."""
        assert self.meeting is not None
        if self._children:
            for child, arrived in zip(self._children, self.meeting.of_every_rank("arrived")[1:], strict=True):
                if not arrived:
                    child.kill()

    def _may_go(self, waits_for_first: bool) -> bool:
        assert self.meeting is not None
        if self.is_first:
            return all(self._have_left())
        return not waits_for_first or self.meeting.look("left/0") is not None

    def _have_left(self) -> list[bool]:
        """Of each process: whether it needs the store no longer, or never came, or has ended."""
        assert self.meeting is not None
        pairs = zip(self.meeting.of_every_rank("left"), self.meeting.of_every_rank("arrived"), strict=True)
        gone = [bool(left) or not arrived for left, arrived in pairs]
        for rank, child in enumerate(self._children, start=1):
            gone[rank] = child.poll() is not None
        return gone

    def _restore_environment(self) -> None:
        """A program may train again, in as many processes as it likes."""
        for name, value in self._environment_before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    @staticmethod
    def _destroy_group() -> None:
        """A program that trains again starts other processes, which need a group of their own.

        Those of a launcher stay, and so does their group: in its store a second one of the same name would
        find the addresses of the first.
        """
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    @staticmethod
    def _tell_libraries(place: ProcessPlace, address: str, port: int) -> None:
        """What Lightning's own environment and torch read; torchrun and srun have set the like."""
        if place.launcher in ("torchrun", "srun"):
            return
        values = {
            "RANK": place.rank,
            "WORLD_SIZE": place.num_processes,
            "LOCAL_RANK": place.local_rank,
            "LOCAL_WORLD_SIZE": place.num_local,
            "NODE_RANK": place.rank // place.num_local,
            "MASTER_ADDR": address,
            "MASTER_PORT": port,
        }
        os.environ.update({name: str(value) for name, value in values.items()})


def _is_lost(error: BaseException) -> bool:
    """Whether a collective operation or torch's store has found that another process is gone."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or any(name in str(error) for name in _BACKENDS)


def _is_interruption(error: BaseException) -> bool:
    """Whether all processes agreed to end here, as ``TrainingInterrupted`` says."""
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
    address = os.environ.get("MASTER_ADDR")
    port = _given_port()
    if not address or not port:
        raise LaunchError(
            f"RANK={place.rank}, WORLD_SIZE={place.num_processes} without MASTER_ADDR and MASTER_PORT",
            "set both to the machine of rank 0, or start with torchrun",
        )
    return address, port


def _given_port() -> int:
    text = os.environ.get("MASTER_PORT", "0")
    if not (text.isdecimal() and int(text) < 2**16):
        raise LaunchError(f"MASTER_PORT={text}: not a port", "use a number from 1024 to 65535")
    return int(text)


def _rendezvous_timeout(arguments: list[str]) -> float:
    """``run.rendezvous_timeout`` before anything is parsed; what is wrong with it is said later."""
    default = RunConfig.rendezvous_timeout
    try:
        return float(early_option(arguments, "run", "rendezvous_timeout") or default)
    except (InsightError, ValueError):
        return default


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
