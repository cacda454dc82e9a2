"""Notice that the processes of a run are silent, find the one that they wait for, and end the run."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from insight.runtime.launching.meeting import Failure, Meeting
from insight.runtime.messages import plain_line

_LONGEST_INTERVAL = 5.0
_INTERVAL_OUTSIDE_OF_TRAINING = 1.0
_SECONDS_TO_ANSWER = 10.0
# After another process has failed, how long this one may take to notice it and leave regularly.
_SECONDS_TO_LEAVE = 20.0
# A process that uses less than this share of a core counts as not working.
_WORKING_SHARE = 0.05
_PACKAGES, _STANDARD = (os.path.join(sysconfig.get_path(name), "") for name in ("purelib", "stdlib"))
_LIBRARIES = tuple(os.path.join(_PACKAGES, name, "") for name in ("torch", "lightning"))
# A process whose innermost function is in one of these folders waits for other processes.
_WAITING = (os.path.join("torch", "distributed", ""), os.path.join("torch", "nn", "parallel", ""))
_BACKWARD = "_engine_run_backward"
_DONE = "done"


@dataclass(frozen=True)
class Answer:
    """The reply of a process that was asked where it is.

    Args:
        moment: Number of events that it has reported.
        doing: The event that it reported last, e.g. ``"finished step 17"``.
        place: ``FILE:LINE (function)`` of its main thread.
        waits: Whether it is inside a collective operation, where it waits for others.
    """

    moment: int
    doing: str
    place: str
    waits: bool


class RankWatch:
    """A thread in every process that shows that the process works; in the first process it judges silence.

    A process is silent while it neither reports events nor advances in its own Python code; outside of
    training, processor time counts as work too. If all processes are silent for too long, one of them hangs
    and the others wait for it. Then each writes the stacks of its threads to ``hang/rank-<rank>.txt`` and
    reports where it is. The late process is the one that has reported the fewest events and does not wait for
    others. The whole run ends with exit code 1, whatever blocks the main threads.

    The clock of the first process measures silence, so the clocks of the machines need not agree.

    Args:
        meeting: The store of the run.
        kill_others: A function that kills the other processes of this machine.
    """

    def __init__(self, meeting: Meeting, kill_others: Callable[[], None]) -> None:
        self._meeting = meeting
        self._kill_others = kill_others
        self._watched = threading.get_ident()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rank-watch", daemon=True)
        self._is_training = False
        self._seconds, self._folder = 0.0, Path()
        self._write_down: Callable[[str], None] = lambda message: None
        self._moment, self._doing = 0, ""
        self._pulse, self._last_cpu = 0, 0.0
        self._last_sign: object = None
        self._last_changes: dict[int, tuple[object, float]] = {}
        self._thread.start()

    def begin_training(self, seconds: float, folder: Path, write_down: Callable[[str], None]) -> None:
        """Judge silence from now on.

        Args:
            seconds: How long all processes may be silent.
            folder: The run folder, for the stacks.
            write_down: A function that the first process calls with the message.
        """
        self._watched = threading.get_ident()
        self._seconds, self._folder, self._write_down = seconds, folder, write_down
        self._doing, self._is_training = "started training", True

    def progress(self, doing: str) -> None:
        """Report an event, e.g. ``"finished step 17"``."""
        self._doing = doing
        self._moment += 1

    def end_training(self) -> None:
        """Stop judging silence, because the work after training may take any time."""
        if self._is_training:
            self._is_training = False
            with contextlib.suppress(RuntimeError, OSError):  # the process that serves the store is gone
                self._meeting.publish_own("moment", _DONE)

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join(timeout=_SECONDS_TO_ANSWER)

    @property
    def _interval(self) -> float:
        if self._is_training:
            return min(_LONGEST_INTERVAL, self._seconds / 10)
        return _INTERVAL_OUTSIDE_OF_TRAINING

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._interval):
                self._show_work()
                self._meeting.failure()  # remembers a failure before the serving process ends
                if self._is_training:
                    self._watch_training()
        except (RuntimeError, OSError):
            # The process that serves the store is gone. Collective operations notice that too, but some only
            # after half an hour.
            if self._is_training and not self._stopping.wait(_SECONDS_TO_LEAVE):
                _print("error: rank 0 is gone: go on with --resume auto")
                os._exit(1)

    def _show_work(self) -> None:
        """Publish a new pulse if this process has worked since the last one."""
        frame = sys._current_frames().get(self._watched)
        _, waits = place_of(frame)
        sign = self._moment, () if waits else _own_position(frame)
        cpu = sum(os.times()[:4])
        is_busy = not self._is_training and cpu - self._last_cpu > _WORKING_SHARE * self._interval
        if is_busy or sign != self._last_sign:
            self._pulse += 1
            self._meeting.publish_own("pulse", self._pulse)
        self._last_sign, self._last_cpu = sign, cpu

    def _watch_training(self) -> None:
        self._meeting.publish_own("moment", self._moment)
        failure = self._meeting.failure()
        if failure:
            # End this process if a collective operation blocks it.
            if not self._stopping.wait(_SECONDS_TO_LEAVE) and self._is_training:
                os._exit(failure.exit_code)
        elif self._meeting.look("stall") is not None:
            self._answer_and_end()
        elif self._meeting.place.rank == 0:
            self._judge()

    def _judge(self) -> None:
        now = time.monotonic()
        signs = zip(*(self._meeting.of_every_rank(name) for name in ("moment", "pulse")), strict=True)
        for rank, sign in enumerate(signs):
            if sign[0] in (None, _DONE):
                self._last_changes.pop(rank, None)
            elif rank not in self._last_changes or self._last_changes[rank][0] != sign:
                self._last_changes[rank] = sign, now
        silence = min((now - since for _, since in self._last_changes.values()), default=0.0)
        if silence > self._seconds:
            self._meeting.publish("stall", silence)
            self._answer_and_end()

    def _answer_and_end(self) -> None:
        rank = self._meeting.place.rank
        place, waits = place_of(sys._current_frames().get(self._watched))
        self._meeting.publish_own("answer", asdict(Answer(self._moment, self._doing, place, waits)))
        deadline = time.monotonic() + _SECONDS_TO_ANSWER + 2 * self._interval
        self._write_stacks()
        failure = None
        while failure is None and time.monotonic() < deadline + (0 if rank == 0 else _SECONDS_TO_ANSWER):
            answers = self._answers() if rank == 0 else {}
            if rank == 0 and (None not in answers.values() or time.monotonic() > deadline - 1):
                failure = self._end_run(answers)
            else:
                time.sleep(0.05)
                failure = self._meeting.failure()
        os._exit(1)

    def _answers(self) -> dict[int, Answer | None]:
        """The answers of all processes that have not ended training."""
        moments, answers = (self._meeting.of_every_rank(name) for name in ("moment", "answer"))
        return {
            rank: None if answer is None else Answer(**answer)
            for rank, (moment, answer) in enumerate(zip(moments, answers, strict=True))
            if moment != _DONE
        }

    def _end_run(self, answers: dict[int, Answer | None]) -> Failure:
        """Name the late process and its place, and tell the others that this has ended the run."""
        rank, message = late(answers, float(self._meeting.look("stall")))
        message = f"{message}; stacks of all processes: {self._folder / 'hang'}"
        _print(f"error: {message}")
        failure = self._meeting.fail(rank, message, 1)
        with contextlib.suppress(Exception):
            self._write_down(message)
        time.sleep(3 * self._interval)  # the others must read it before the store ends
        self._kill_others()
        return failure

    def _write_stacks(self) -> None:
        with contextlib.suppress(OSError):
            folder = self._folder / "hang"
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"rank-{self._meeting.place.rank}.txt").open("w", encoding="utf-8") as file:
                faulthandler.dump_traceback(file, all_threads=True)


def late(answers: dict[int, Answer | None], seconds: float) -> tuple[int, str]:
    """The rank that the others wait for, and a sentence about it.

    A process that did not answer has ``None`` among the ``answers``; nothing has happened for ``seconds``.
    """
    for rank, answer in answers.items():
        if answer is None:
            return rank, (
                f"rank {rank} has made no progress for {seconds:.0f} s and does not answer: it has not "
                "begun, or its process or machine is stopped or gone"
            )
    given = [(rank, answer) for rank, answer in answers.items() if answer is not None]
    least = min(answer.moment for _, answer in given)
    behind = [(rank, answer) for rank, answer in given if answer.moment == least]
    busy = [(rank, answer) for rank, answer in behind if not answer.waits]
    rank, answer = (busy or behind)[0]
    sentence = f"rank {rank} has not {answer.doing} for {seconds:.0f} s; it is in {answer.place}"
    if not busy and len(behind) == len(given):
        sentence += ", and all others wait in operations of their own: not all take part in the same"
    return rank, sentence


def place_of(frame: FrameType | None) -> tuple[str, bool]:
    """``FILE:LINE (function)`` of the innermost frame outside of torch and Lightning, and whether it waits.

    ``frame`` is the innermost one of a thread, or ``None`` if the thread has ended.
    """
    if frame is None:
        return "a thread that has ended", False
    innermost = frame.f_code
    waits = any(part in innermost.co_filename for part in _WAITING) or innermost.co_name == _BACKWARD
    outside: FrameType | None = frame
    while outside is not None and outside.f_code.co_filename.startswith(_LIBRARIES):
        outside = outside.f_back
    shown = outside or frame
    return f"{shown.f_code.co_filename}:{shown.f_lineno} ({shown.f_code.co_name})", waits


def _own_position(frame: FrameType | None) -> tuple[tuple[int, int], ...]:
    """The position of a thread in code outside of torch, Lightning and Python's standard library."""
    position = []
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith(_LIBRARIES) and (path.startswith(_PACKAGES) or not path.startswith(_STANDARD)):
            position.append((id(frame.f_code), frame.f_lasti))
        frame = frame.f_back
    return tuple(position)


def _print(text: str) -> None:
    with contextlib.suppress(RuntimeError):  # the main thread may hold the stream
        print(f"insight: {plain_line(text)}", file=sys.stderr, flush=True)
