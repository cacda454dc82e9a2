"""The rule that takes one candidate: sure of its quality, no slower, then fast, then small."""

from __future__ import annotations

import dataclasses

import pytest

from insight.optimization.candidates import ORIGINAL, Candidate, choose, mark_front
from insight.optimization.methods import KeptModule
from insight.runtime.errors import InsightError
from insight.runtime.statistics import Interval


def row(name: str, speed: float, size: int, loss: float = 0.0, width: float = 0.0) -> Candidate:
    """A measured candidate; the original needs 2 bits per byte."""
    difference = None if name == ORIGINAL else Interval(2 * loss, 2 * (loss - width), 2 * (loss + width), 100)
    return Candidate(
        name,
        name,
        compiled="compile" in name,
        disk_bytes=size,
        bits_per_byte=2 * (1 + loss),
        quality_difference=difference,
        prefill_seconds=0.01,
        decode_seconds=1 / speed,
        tokens_per_second=speed,
    )


PLAIN = row(ORIGINAL, 100, 1000)


def test_the_fastest_good_enough_one() -> None:
    chosen, reason = choose(
        [PLAIN, row("a", 150, 500), row("b", 200, 600), row("c", 300, 100, loss=0.1)], 0.005
    )
    assert chosen == "b"
    assert "2.00 times as fast" in reason
    assert "1.67 times smaller" in reason


def test_of_equally_fast_ones_the_smallest() -> None:
    assert choose([PLAIN, row("a", 200, 500), row("b", 203, 600)], 0.005)[0] == "a"
    assert choose([PLAIN, row("a", 97, 500)], 0.005)[0] == "a"


def test_being_uncertain_is_not_good_enough() -> None:
    assert choose([PLAIN, row("a", 200, 500, loss=0.004, width=0.0005)], 0.005)[0] == "a"
    assert choose([PLAIN, row("a", 200, 500, loss=0.004, width=0.002)], 0.005)[0] == ORIGINAL


def test_the_model_is_left_alone_when_nothing_is_as_fast_and_the_price_of_small_is_named() -> None:
    chosen, reason = choose([PLAIN, row("int8", 50, 250)], 0.005)
    assert chosen == ORIGINAL
    assert "leave the model alone" in reason
    assert "int8 writes 0.50 times as fast" in reason
    assert "--method int8 --compile off" in reason


def test_what_was_asked_for_is_taken_unless_it_loses_too_much() -> None:
    assert choose([PLAIN, row("int8", 50, 250)], 0.005, may_keep=False)[0] == "int8"
    with pytest.raises(InsightError) as refusal:
        choose([PLAIN, row("int8", 50, 250, loss=0.02)], 0.005, may_keep=False)
    assert (refusal.value.option, refusal.value.value) == ("max_quality_loss", 0.005)
    assert (refusal.value.option, refusal.value.value) == ("max_quality_loss", 0.005)
    refused = Candidate("int8", "int8", compiled=False, status="refused", reason="no kernel")
    with pytest.raises(InsightError, match="no kernel"):
        choose([PLAIN, refused], 0.005, may_keep=False)


def test_linear_maps_that_were_left_are_counted_in_the_sentence() -> None:
    kept = [KeptModule(name, "group_size=64 does not divide its 96 inputs", is_linear=True) for name in "abc"]
    kept.append(KeptModule("norm", "not a linear map"))
    some = dataclasses.replace(row("int8", 200, 500), modules_quantized=("d",), modules_kept=tuple(kept))
    _, reason = choose([PLAIN, some], 0.005)
    assert "3 of 4 linear maps stay as they are (group_size=64 does not divide its 96 inputs)" in reason
    all_taken = dataclasses.replace(some, modules_kept=(kept[-1],))
    assert "as they are" not in choose([PLAIN, all_taken], 0.005)[1]


def test_refused_candidates_are_never_chosen() -> None:
    refused = Candidate("int8", "int8", compiled=True, status="refused", reason="no compiler")
    assert choose([PLAIN, refused], 0.005)[0] == ORIGINAL


def test_the_front_holds_what_nothing_dominates() -> None:
    rows = [
        PLAIN,
        row("smaller", 90, 500, loss=0.001),
        row("worse", 80, 600, loss=0.002),
        row("faster", 300, 1000, loss=0.001),
        dataclasses.replace(row("refused", 900, 1), status="refused"),
    ]
    front = {one.name for one in mark_front(rows) if one.pareto}
    assert front == {ORIGINAL, "smaller", "faster"}


def test_equals_stay_on_the_front_together() -> None:
    rows = [PLAIN, row("a", 200, 500), row("b", 200, 500)]
    assert [one.pareto for one in mark_front(rows)] == [False, True, True]
