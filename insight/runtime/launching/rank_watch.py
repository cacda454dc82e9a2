"""Notices that a process of a run makes no progress, finds out which one and where, and ends the run."""

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
_SECONDS_TO_ANSWER = 10.0
# After another process has failed: how long this one may need to find out by itself and leave in order.
_SECONDS_TO_LEAVE = 20.0
_LIBRARIES = tuple(os.path.join(sysconfig.get_path("purelib"), name, "") for name in ("torch", "lightning"))
# Files whose functions wait for other processes, where they are the innermost of a stack.
_WAITING = (os.path.join("torch", "distributed", ""), os.path.join("torch", "nn", "parallel", ""))
_BACKWARD = "_engine_run_backward"
_DONE = "done"


@dataclass(frozen=True)
class Answer:
    """Where a process is when it is asked.

    Args:
        moment: Number of events that it has reported.
        doing: What it has begun and not finished.
        place: ``FILE:LINE (function)`` of its main thread.
        waits: Whether that is inside a collective operation, where it waits for others.
    """

    moment: int
    doing: str
    place: str
    waits: bool


class RankWatch:
    """A thread in every process that reports progress, and in the first one judges it.

    Progress is a counter; each process's is watched by the clock of the first, so clocks need not agree.
    When one has stood still for too long, all are asked: each writes the stacks of its threads to
    ``hang/rank-<rank>.txt`` and answers where it is. Late is who has counted least and does not wait for
    others. Then the whole run ends: exit code 1, whatever the main threads are blocked in.

    Args:
        meeting: Store of the run.
        seconds: Without progress until the run is ended.
        folder: Run folder, for the stacks.
        write_down: Called in the first process with the message.
        kill_others: Called there when the others have had time to end by themselves.
    """

    def __init__(
        self,
        meeting: Meeting,
        seconds: float,
        folder: Path,
        write_down: Callable[[str], None],
        kill_others: Callable[[], None],
    ) -> None:
        self._meeting = meeting
        self._seconds = seconds
        self._folder = folder
        self._write_down = write_down
        self._kill_others = kill_others
        self._moment = 0
        self._doing = "started training"
        self._watched = threading.get_ident()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rank-watch", daemon=True)
        self._interval = min(_LONGEST_INTERVAL, seconds / 10)
        self._last_changes: dict[int, tuple[int, float]] = {}

    def start(self) -> None:
        """Begin to watch the thread that calls."""
        self._watched = threading.get_ident()
        self._thread.start()

    def progress(self, doing: str) -> None:
        """Report that something is finished, and what is next, e.g. ``"finished step 17"``."""
        self._doing = doing
        self._moment += 1

    def stop(self) -> None:
        """End watching; this process is no longer expected to make progress."""
        if self._thread.is_alive() and not self._stopping.is_set():
            self._stopping.set()
            self._thread.join(timeout=_SECONDS_TO_ANSWER)

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._interval):
                self._meeting.publish_own("moment", self._moment)
                failure = self._meeting.failure()
                if failure:
                    self._leave_by_force(failure)
                elif self._meeting.look("stall") is not None:
                    self._answer_and_end()
                elif self._meeting.place.rank == 0:
                    self._judge()
            self._meeting.publish_own("moment", _DONE)
        except (RuntimeError, OSError):
            # The process that serves the store is gone. Collective operations find that out too, but some
            # only after half an hour.
            if not self._stopping.wait(_SECONDS_TO_LEAVE):
                _print("error: rank 0 is gone: see what it said; go on with --resume auto")
                os._exit(1)

    def _judge(self) -> None:
        now = time.monotonic()
        for rank, moment in enumerate(self._meeting.of_every_rank("moment")):
            known = self._last_changes.get(rank)
            if moment in (None, _DONE):  # not begun, or done
                self._last_changes.pop(rank, None)
            elif known is None or known[0] != moment:
                self._last_changes[rank] = moment, now
        longest = max((now - since for _, since in self._last_changes.values()), default=0.0)
        if longest > self._seconds:
            self._meeting.publish("stall", longest)
            self._answer_and_end()

    def _answer_and_end(self) -> None:
        rank = self._meeting.place.rank
        self._meeting.publish_own("answer", asdict(self._own_answer()))
        deadline = time.monotonic() + _SECONDS_TO_ANSWER + 2 * self._interval
        self._write_stacks()
        failure = None
        while failure is None and time.monotonic() < deadline + (0 if rank == 0 else _SECONDS_TO_ANSWER):
            answers = self._answers() if rank == 0 else {}
            if rank == 0 and (None not in answers.values() or time.monotonic() > deadline - 1):
                failure = self._verdict(answers)
            else:
                time.sleep(0.05)
                failure = self._meeting.failure()
        os._exit(1)

    def _answers(self) -> dict[int, Answer | None]:
        """Of every process that has not ended training."""
        moments, answers = (self._meeting.of_every_rank(name) for name in ("moment", "answer"))
        return {
            rank: None if answer is None else Answer(**answer)
            for rank, (moment, answer) in enumerate(zip(moments, answers, strict=True))
            if moment != _DONE
        }

    def _verdict(self, answers: dict[int, Answer | None]) -> Failure:
        """Say who is late and where, and tell the others that this has ended the run."""
        rank, message = late(answers, float(self._meeting.look("stall")))
        message = f"{message}; stacks of all processes: {self._folder / 'hang'}"
        _print(f"error: {message}")
        failure = self._meeting.fail(rank, message, 1)
        with contextlib.suppress(Exception):
            self._write_down(message)
        time.sleep(3 * self._interval)  # until the others have read it: the store ends with this process
        self._kill_others()
        return failure

    def _own_answer(self) -> Answer:
        frame = sys._current_frames().get(self._watched)
        place, waits = place_of(frame)
        return Answer(self._moment, self._doing, place, waits)

    def _write_stacks(self) -> None:
        with contextlib.suppress(OSError):
            folder = self._folder / "hang"
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"rank-{self._meeting.place.rank}.txt").open("w", encoding="utf-8") as file:
                faulthandler.dump_traceback(file, all_threads=True)

    def _leave_by_force(self, failure: Failure) -> None:
        """Another process has failed and said why: end this one if a collective operation holds it."""
        if not self._stopping.wait(_SECONDS_TO_LEAVE):
            os._exit(failure.exit_code)


def late(answers: dict[int, Answer | None], seconds: float) -> tuple[int, str]:
    """Which process the others wait for, and a sentence about it.

    Args:
        answers: By rank; ``None`` where none came.
        seconds: For how long nothing has happened.
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

    Args:
        frame: The innermost frame of a thread; ``None`` for one that has ended.
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


def _print(text: str) -> None:
    with contextlib.suppress(RuntimeError):  # the main thread holds the stream
        print(f"insight: {plain_line(text)}", file=sys.stderr, flush=True)
