"""Who of several processes is late, and where a thread is; whole runs that hang are in tests/cli."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import torch

from insight.runtime.launching.rank_watch import State, late, place_of


def test_who_has_counted_least_is_late() -> None:
    answers = {
        0: State(9, "finished step 4", "a.py:1 (f)", False),
        1: State(8, "begun step 4", "b.py:2 (load)", False),
    }
    assert late(answers, 60.4) == (1, "rank 1 has not begun step 4 for 60 s; it is in b.py:2 (load)")


def test_of_equals_the_one_that_does_not_wait_is_late() -> None:
    answers = {
        0: State(9, "finished step 4", "a.py:1 (training_step)", True),
        1: State(9, "finished step 4", "b.py:2 (sleep)", False),
    }
    rank, sentence = late(answers, 60)
    assert rank == 1
    assert sentence == "rank 1 has not finished step 4 for 60 s; it is in b.py:2 (sleep)"


def test_all_that_wait_for_one_another_are_said_to() -> None:
    waiting = State(9, "finished step 4", "a.py:1 (training_step)", True)
    rank, sentence = late({0: waiting, 1: waiting}, 60)
    assert rank == 0
    assert "not all take part in the same" in sentence


def test_who_does_not_answer_is_late() -> None:
    rank, sentence = late({0: State(9, "finished step 4", "a.py:1 (f)", True), 1: None}, 60)
    assert rank == 1
    assert "does not answer" in sentence


def test_the_place_is_outside_of_the_libraries() -> None:
    """A thread that is in torch's backward pass is shown where our code called it, and waits, perhaps."""
    entered, leave = threading.Event(), threading.Event()

    class Blocks(torch.autograd.Function):
        @staticmethod
        def forward(context: object, tensor: torch.Tensor) -> torch.Tensor:
            return tensor.clone()

        @staticmethod
        def backward(context: object, gradient: torch.Tensor) -> torch.Tensor:
            entered.set()
            leave.wait(20)
            return gradient

    def train() -> None:
        Blocks.apply(torch.ones(1, requires_grad=True)).backward()

    thread = threading.Thread(target=train)
    thread.start()
    try:
        assert entered.wait(20)
        assert thread.ident is not None
        frame = sys._current_frames()[thread.ident]
        while frame.f_code.co_name != "_engine_run_backward":  # as if the engine itself waited
            assert frame.f_back is not None
            frame = frame.f_back
        place, waits = place_of(frame)
    finally:
        leave.set()
        thread.join(20)
    assert waits
    assert place.startswith(str(Path(__file__)))
    assert place.endswith("(train)")


def test_a_thread_that_computes_does_not_wait() -> None:
    place, waits = place_of(sys._getframe())
    assert not waits
    assert "(test_a_thread_that_computes_does_not_wait)" in place
