"""The state that a process shows the others, and which of several silent processes the others wait for."""

from __future__ import annotations

import os
import sysconfig
import time
from collections.abc import Mapping
from enum import IntEnum
from traceback import walk_stack
from types import FrameType
from typing import NamedTuple

_PACKAGES, _STANDARD = (os.path.join(sysconfig.get_path(name), "") for name in ("purelib", "stdlib"))
_LIBRARIES = tuple(os.path.join(_PACKAGES, name, "") for name in ("torch", "lightning"))
# A process whose innermost function is in one of these folders waits for other processes.
_WAITING = (os.path.join("torch", "distributed", ""), os.path.join("torch", "nn", "parallel", ""))
_BACKWARD = "_engine_run_backward"


class Point(IntEnum):
    """The points of a run that every process reaches, in order."""

    NONE, ARRIVED, READY, TRAINED, LEFT = range(5)


class State(NamedTuple):
    """The state of a process; by default, of one that has not arrived."""

    moment: int = 0  # number of events that it has reported
    doing: str = ""  # the event that comes next, e.g. "finished step 17"
    place: str = ""  # FILE:LINE (function) of its main thread
    waits: bool = False  # whether that is inside a collective operation, where it waits for others
    point: int = Point.NONE  # the last point that it has reached
    pulse: int = 0  # grows when it works
    num_beats: int = 0  # grows whether it works or not


class Silence:
    """Measures for how long something has stayed the same."""

    def __init__(self) -> None:
        self._last: object = None
        self._since = time.monotonic()

    def of(self, sign: object) -> float:
        """Seconds since ``sign`` has changed."""
        if sign != self._last:
            self._last, self._since = sign, time.monotonic()
        return time.monotonic() - self._since


def late(states: Mapping[int, State | None], seconds: float) -> tuple[int, str]:
    """The rank that the others have waited for, for some ``seconds``, and a sentence about it.

    A process that does not answer has ``None`` among the ``states``. If all do, it is the one that has
    reported the fewest events and does not wait for others itself.
    """
    order = {rank: (state.moment, state.waits) if state else (-1, False) for rank, state in states.items()}
    rank = min(order, key=order.__getitem__)
    state = states[rank]
    if state is None:
        return rank, (
            f"rank {rank} has made no progress for {seconds:.0f} s and does not answer: it has not "
            "begun, or its process or machine is stopped or gone"
        )
    sentence = f"rank {rank} has not {state.doing} for {seconds:.0f} s; it is in {state.place}"
    if all(other and other.waits and other.moment == state.moment for other in states.values()):
        sentence += ", and all others wait in operations of their own: not all take part in the same"
    return rank, sentence


def place_of(frame: FrameType) -> tuple[str, bool]:
    """``FILE:LINE (function)`` of a thread outside of torch and Lightning, and whether the thread waits."""
    code = frame.f_code
    waits = any(part in code.co_filename for part in _WAITING) or code.co_name == _BACKWARD
    outside = (caller for caller, _ in walk_stack(frame) if not _is_in(caller, _LIBRARIES))
    shown = next(outside, frame)
    return f"{shown.f_code.co_filename}:{shown.f_lineno} ({shown.f_code.co_name})", waits


def own_position(frame: FrameType) -> tuple[tuple[int, int], ...]:
    """The position of a thread in code outside of torch, Lightning and Python's standard library."""
    return tuple(
        (id(caller.f_code), caller.f_lasti)
        for caller, _ in walk_stack(frame)
        if not _is_in(caller, _LIBRARIES) and (_is_in(caller, _PACKAGES) or not _is_in(caller, _STANDARD))
    )


def _is_in(frame: FrameType, folders: str | tuple[str, ...]) -> bool:
    return frame.f_code.co_filename.startswith(folders)
