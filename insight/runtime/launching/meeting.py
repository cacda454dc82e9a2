"""The store in which the processes of a run meet, and the thread that shows that each of them works."""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from insight.runtime.errors import LaunchError
from insight.runtime.launching.rank_watch import Point, Silence, State, late, own_position, place_of
from insight.runtime.messages import print_line, say
from insight.runtime.processes import ProcessPlace

_POLL_SECONDS = 0.1
_OPERATION_SECONDS = 60.0
# A process that has waited this long for others says which ones are missing.
_SECONDS_UNTIL_SAID = 5.0
# The time between two beats of a process; in training, a tenth of the time-out if that is shorter.
_LONGEST_INTERVAL = 5.0
_INTERVAL_OUTSIDE_OF_TRAINING = 1.0
# A process that has not beaten for this long, and two intervals, does not answer.
_SECONDS_TO_ANSWER = 10.0
# After another process has failed, how long this one may take to notice it and leave regularly.
_SECONDS_TO_LEAVE = 20.0
# A process that uses less than this share of a core counts as not working.
_WORKING_SHARE = 0.05
# A program that a launcher started once may train several times. All processes number these runs alike.
_numbers = itertools.count()


class Failure(NamedTuple):
    """The event that ended a run of several processes."""

    rank: int  # the process that failed
    message: str
    exit_code: int  # of every process of the run
    stacks: str = ""  # if the run hangs, the folder in which each process writes its stacks


class EndedElsewhere(SystemExit):
    """The run has ended and the reason is printed, so this process leaves silently, with the exit code."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.exit_code)
        self.add_note(f"ended by rank {failure.rank}: {failure.message}")


class Meeting:
    """The store of one run: JSON values by name, and the state of every process.

    It is torch's ``TCPStore``. The first process serves it on the port that torch's process group also uses;
    under torchrun the agent serves it. It answers even while the Python code of the first process is busy.

    A thread publishes the state of this process at every beat. A process is silent while it neither reports
    events nor advances in its own Python code; outside of training, processor time counts as work too. If all
    processes are silent for too long in training, one of them hangs and the others wait for it. The first
    process then names it; each writes the stacks of its threads to ``hang/rank-<rank>.txt`` and ends,
    whatever blocks its main thread. Only the clock of the first process counts.

    The constructor waits for the first process for some ``seconds`` at its ``address``. Port 0 lets the first
    process choose a free one. ``children`` are the processes that this one has started, by rank.

    Raises:
        LaunchError: The port is in use, or no store answers there.
    """

    def __init__(self, place: ProcessPlace, address: str, port: int, seconds: float) -> None:
        from torch._C._distributed_c10d import PrefixStore, TCPStore
        from torch.distributed import DistNetworkError, DistStoreError

        serves = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        timeout = timedelta(seconds=max(seconds, 1.0))
        number = next(_numbers) if place.launcher else 0
        try:
            store = TCPStore(address, port, None, serves, timeout, wait_for_workers=False, multi_tenant=True)
        except (DistNetworkError, DistStoreError, ValueError) as error:
            raise _no_store(error, place, serves, address, port, seconds) from error
        store.set_timeout(timedelta(seconds=_OPERATION_SECONDS))
        # Restarted runs, and the next run of one program, may use the same store: each gets its own names.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = PrefixStore(f"insight/{attempt}/{number}", store)
        self.place, self.port = place, store.port
        self.children: dict[int, subprocess.Popen[bytes]] = {}
        self._failure: Failure | None = None
        self._own, self._event = State(), (0, "started training")
        self._last_sign: object = None
        self._last_cpu = 0.0
        self._watched = threading.get_ident()
        self._is_training = False
        self._silence, self._silences = Silence(), [Silence() for _ in range(place.num_processes)]
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rank-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and the processes that were started here."""
        self._closing.set()
        self._thread.join(timeout=_SECONDS_TO_ANSWER)
        self._kill_children()

    def publish(self, name: str, value: Any) -> None:
        """Let all processes read ``value``."""
        self._store.set(name, json.dumps(value))

    def look(self, name: str) -> Any:
        """The value that has been published under ``name``, or ``None``."""
        return json.loads(self._store.get(name)) if self._store.check([name]) else None

    def take(self, name: str) -> Any:
        """Wait for the value that a process publishes under ``name``, as long as the run lasts."""
        while not self._store.check([name]):
            self._check()
            time.sleep(_POLL_SECONDS)
        return self.look(name)

    def state(self, rank: int) -> State:
        """The newest state that a process has published."""
        return State(*(self.look(f"state/{rank}") or ()))

    def reach(self, point: Point) -> None:
        """Report that this process has reached a point."""
        self._beat(point)

    def wait_for_all(self, point: Point, seconds: float, option: str = "run.rendezvous_timeout") -> None:
        """Reach a point, and wait until all processes have.

        Raises:
            EndedElsewhere: The run has ended.
            LaunchError: Some processes have been silent for ``seconds``, which ``option`` holds.
        """
        self.reach(point)
        begun, silence, is_said = time.monotonic(), Silence(), False
        missing = dict.fromkeys(range(self.place.num_processes), State())
        while missing := {rank: state for rank in missing if (state := self.state(rank)).point < point}:
            if silence.of({rank: state.pulse for rank, state in missing.items()}) > seconds:
                number = self.place.num_processes
                raise LaunchError(
                    f"{number - len(missing)} of {number} processes came within {seconds:g} s: "
                    f"{_listed(missing)} {'is' if len(missing) == 1 else 'are'} missing",
                    f"{self.place.how_to_start_all}; raise --{option} if they need longer",
                )
            nobody_works = not any(state.pulse for state in missing.values())
            if nobody_works and not is_said and time.monotonic() - begun > _SECONDS_UNTIL_SAID:
                is_said = True
                say(f"waiting for {_listed(missing)}: {self.place.how_to_start_all}")
            self._check()
            time.sleep(_POLL_SECONDS)
        self._check()  # a process that fails passes all points

    def _check(self) -> None:
        if failure := self.failure():
            raise EndedElsewhere(failure)

    def fail(self, failure: Failure) -> Failure:
        """End the run for all processes, and return its first failure, which is the one that counts."""
        return Failure(*json.loads(self._store.compare_set("failure", "", json.dumps(failure))))

    def failure(self) -> Failure | None:
        """The event that has ended the run, or ``None``; it is remembered when the store is gone."""
        if self._failure is None and (found := self.look("failure")):
            self._failure = Failure(*found)
        return self._failure

    def check_children(self) -> Failure | None:
        """:meth:`failure`, after a look whether a process that was started here has ended badly."""
        for rank, child in tuple(self.children.items()):
            code = child.poll()
            if code and code < 0:
                name = signal.Signals(-code).name
                remedy = "was its memory short? " if name == "SIGKILL" else ""
                self._end_run(rank, f"rank {rank} was ended by {name}: {remedy}go on with --resume auto")
            elif code:
                self._end_run(rank, f"rank {rank} ended with exit code {code}: see what it said")
        return self.failure()

    def _end_run(self, rank: int, message: str, stacks: str = "") -> None:
        """End the run, unless it has ended, because of a process that cannot say so itself."""
        with self._lock:
            if self.failure() is None and self.fail(own := Failure(rank, message, 1, stacks)) == own:
                _print_error(message)

    def _kill_children(self) -> None:
        for child in self.children.values():
            with contextlib.suppress(OSError):
                child.kill()

    def begin_training(self, seconds: float, folder: Path, write_down: Callable[[str], None]) -> None:
        """Let all processes be silent for ``seconds`` at most from now on.

        Otherwise the stacks go to the run ``folder``, and the first process calls ``write_down`` with the
        message.
        """
        self._watched = threading.get_ident()
        self._seconds, self._folder, self._write_down = seconds, folder, write_down
        self._is_training = True

    def progress(self, doing: str) -> None:
        """Report an event by the one that comes next, e.g. ``"finished step 17"``."""
        self._event = self._event[0] + 1, doing

    def end_training(self) -> None:
        """Stop judging silence, because the work after training may take any time."""
        if self._is_training:
            self._is_training = False
            with contextlib.suppress(RuntimeError, OSError):  # the process that serves the store is gone
                self.reach(Point.TRAINED)

    @property
    def _interval(self) -> float:
        if self._is_training:
            return min(_LONGEST_INTERVAL, self._seconds / 10)
        return _INTERVAL_OUTSIDE_OF_TRAINING

    def _beat(self, point: Point = Point.NONE) -> None:
        """Publish the state of this process, with a new pulse if it has worked since the last time."""
        with self._lock:
            before, (moment, doing) = self._own, self._event
            frame = sys._current_frames()[self._watched]
            place, waits = place_of(frame)
            sign = moment, () if waits else own_position(frame)
            cpu = sum(os.times()[:4])
            is_busy = not self._is_training and cpu - self._last_cpu > _WORKING_SHARE * self._interval
            pulse = before.pulse + (is_busy or sign != self._last_sign)
            reached = max(point, before.point)
            self._own = State(moment, doing, place, waits, reached, pulse, before.num_beats + 1)
            self._last_sign, self._last_cpu = sign, cpu
            self.publish(f"state/{self.place.rank}", self._own)

    def _run(self) -> None:
        try:
            while not self._closing.wait(self._interval):
                self._beat()
                if self._is_training and self.place.rank == 0:
                    self._judge()
                # A look remembers the failure before the serving process ends.
                failure = self.check_children() if self._own.point < Point.LEFT else self.failure()
                if failure and (self._is_training or failure.stacks):
                    self._end_process(failure)
        except (RuntimeError, OSError):
            # The process that serves the store is gone. Collective operations notice that too, but some only
            # after half an hour.
            if self._is_training and not self._closing.wait(_SECONDS_TO_LEAVE):
                _print_error("rank 0 is gone: go on with --resume auto")
                os._exit(1)

    def _judge(self) -> None:
        """End the run if all processes that have not ended training have been silent for too long."""
        states = {rank: self.state(rank) for rank in range(self.place.num_processes)}
        longest = _SECONDS_TO_ANSWER + 2 * self._interval
        answering = {
            rank: state if self._silences[rank].of(state.num_beats) < longest else None
            for rank, state in states.items()
            if state.point < Point.TRAINED
        }
        seconds = self._silence.of({rank: states[rank].pulse for rank in answering})
        if answering and seconds > self._seconds:
            rank, message = late(answering, seconds)
            stacks = str(self._folder / "hang")
            self._write_stacks(stacks)
            self._end_run(rank, f"{message}; stacks of all processes: {stacks}", stacks)

    def _end_process(self, failure: Failure) -> None:
        """End this process: at once if the run hangs, else if a collective operation blocks it."""
        if not failure.stacks:
            if not self._closing.wait(_SECONDS_TO_LEAVE) and self._is_training:
                os._exit(failure.exit_code)
            return
        if self.place.rank == 0:
            with contextlib.suppress(Exception):
                self._write_down(failure.message)
            time.sleep(3 * self._interval)  # the others must read the failure before the store ends
            self._kill_children()
        else:
            self._write_stacks(failure.stacks)
        os._exit(failure.exit_code)

    def _write_stacks(self, folder: str) -> None:
        with contextlib.suppress(OSError):
            path = Path(folder) / f"rank-{self.place.rank}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="utf-8") as file:
                faulthandler.dump_traceback(file, all_threads=True)


def _no_store(
    error: Exception, place: ProcessPlace, serves: bool, address: str, port: int, seconds: float
) -> LaunchError:
    text = " ".join(str(error).split())
    for problem, remedy, *signs in (
        ("is in use on this machine", "set another port", "EADDRINUSE", "already in use"),
        ("cannot be listened on", "set one from 1024 to 65535", "failed to listen"),
    ):
        if serves and any(sign in text for sign in signs):
            return LaunchError(problem, remedy, option="MASTER_PORT", value=port)
    return LaunchError(
        f"rank {place.rank}: nobody listens at MASTER_ADDR={address}, MASTER_PORT={port} after {seconds:g} s "
        f"({text[:80]})",
        f"is rank 0 running there? {place.how_to_start_all}; raise --run.rendezvous_timeout for more time",
    )


def _listed(ranks: Collection[int]) -> str:
    shown = ", ".join(map(str, itertools.islice(ranks, 8))) + (", …" if len(ranks) > 8 else "")
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}"


def _print_error(text: str) -> None:
    with contextlib.suppress(RuntimeError):  # the main thread may hold the stream
        print_line(f"error: {text}")
