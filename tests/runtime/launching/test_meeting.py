"""The store of a run: what one process publishes all read, and one failure ends all."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from insight.runtime.errors import LaunchError
from insight.runtime.launching.meeting import EndedElsewhere, Failure, Meeting
from insight.runtime.launching.rank_watch import Point
from insight.runtime.processes import ProcessPlace


@pytest.fixture
def meetings() -> list[Meeting]:
    """Of three processes, all of them in this one."""
    first = Meeting(ProcessPlace(0, 3, 0, 3), "127.0.0.1", 0, 20)
    others = [Meeting(ProcessPlace(rank, 3, rank, 3), "127.0.0.1", first.port, 20) for rank in (1, 2)]
    return [first, *others]


def in_thread(task: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    results: list[object] = []

    def run() -> None:
        try:
            results.append(task())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def test_what_is_published_is_read(meetings: list[Meeting]) -> None:
    first, second, third = meetings
    thread, results = in_thread(lambda: second.take("plan"))
    assert third.look("plan") is None
    first.publish("plan", {"folder": "runs/x/1", "resumed": None})
    thread.join(20)
    assert results == [{"folder": "runs/x/1", "resumed": None}] == [third.look("plan")]
    second.reach(Point.READY)
    assert [first.state(rank).point for rank in range(3)] == [Point.NONE, Point.READY, Point.NONE]


def test_all_wait_for_all(meetings: list[Meeting]) -> None:
    waiting = [in_thread(lambda meeting=m: meeting.wait_for_all(Point.READY, 20)) for m in meetings[:2]]  # type: ignore[misc]
    assert not any(results for _, results in waiting)
    meetings[2].wait_for_all(Point.READY, 20)
    for thread, results in waiting:
        thread.join(20)
        assert results == [None]


def test_who_is_missing_is_said(meetings: list[Meeting]) -> None:
    with pytest.raises(LaunchError, match=r"1 of 3 processes came within 0\.2 s: ranks 1, 2 are missing"):
        meetings[0].wait_for_all(Point.READY, 0.2)


def test_one_failure_ends_all_and_the_first_counts(meetings: list[Meeting]) -> None:
    first, second, third = meetings
    thread, results = in_thread(lambda: first.take("never"))
    assert third.fail(Failure(2, "the data is damaged", 2)) == Failure(2, "the data is damaged", 2)
    assert second.fail(Failure(1, "connection lost", 1)) == Failure(2, "the data is damaged", 2)
    thread.join(20)
    (error,) = results
    assert isinstance(error, EndedElsewhere)
    assert error.code == 2
    assert first.failure() == Failure(2, "the data is damaged", 2)


def test_a_child_that_ends_badly_ends_the_run(
    meetings: list[Meeting], capsys: pytest.CaptureFixture[str]
) -> None:
    meetings[0].children[1] = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    with pytest.raises(EndedElsewhere) as caught:
        meetings[0].take("never")
    assert caught.value.code == 1
    assert "error: rank 1 ended with exit code 7" in capsys.readouterr().err


@pytest.mark.parametrize(("launcher", "meets_anew"), [("torchrun", True), ("", False)])
def test_a_program_that_trains_again_meets_anew(launcher: str, meets_anew: bool) -> None:
    """In the store that torchrun keeps; without a number of its own the second run would see the first."""
    place = ProcessPlace(0, 2, 0, 2, launcher)
    before = Meeting(place, "127.0.0.1", 0, 20)
    before.publish("plan", "of the first run")
    before.reach(Point.ARRIVED)
    again = Meeting(place, "127.0.0.1", before.port, 20)
    assert (again.look("plan") is None) == meets_anew
    assert (again.state(0).point == Point.NONE) == meets_anew
