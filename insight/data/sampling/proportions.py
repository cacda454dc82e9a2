"""Turns in exact proportions: after any number of them everybody has had their share, to less than one."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from insight.runtime.errors import ConfigError

MAX_PERIOD = 100_000
"""Turns until a pattern begins again; that of weights with five digits."""


class Turns(NamedTuple):
    """Whose turn it is; the pattern repeats without end.

    Attributes:
        owner: int64 ``(period,)``, whose turn each is.
        nth: int64 ``(period,)``, how many turns its owner has had before in this period.
        counts: int64 ``(owners,)``, turns of each in a period.
    """

    owner: npt.NDArray[np.int64]
    nth: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


def whole_weights(weights: Sequence[float]) -> tuple[int, ...]:
    """The smallest whole numbers in the same proportions, taking decimals as they are written.

    Args:
        weights: Each above 0 and finite.
    """
    fractions = [Fraction(repr(weight)) for weight in weights]
    denominator = math.lcm(*(fraction.denominator for fraction in fractions))
    numbers = [int(fraction * denominator) for fraction in fractions]
    divisor = math.gcd(*numbers)
    return tuple(number // divisor for number in numbers)


def proportional_turns(weights: Sequence[int]) -> Turns:
    """Turns such that after ``n`` of them everybody has had ``n * share`` turns, to less than one.

    The k-th turn of somebody with share w lies in the slots from floor((k-1)/w) up to, and without,
    ceil(k/w); whoever has to come soonest comes next. That this always works out is the theorem of
    proportionate fairness (Baruah, Cohen, Plaxton and Varvel 1996, Algorithmica 15; Tijdeman 1980 calls it
    the chairman assignment problem).

    Args:
        weights: Whole numbers above 0.

    Raises:
        ConfigError: Their sum, the period, is above ``MAX_PERIOD``.
    """
    period = sum(weights)
    if period > MAX_PERIOD:
        raise ConfigError(
            f"weights in the proportions {' : '.join(map(str, weights))} repeat after {period:,} samples",
            f"round them, so that the whole numbers in their proportion add up to {MAX_PERIOD:,} or less",
        )
    owner = np.empty(period, dtype=np.int64)
    nth = np.empty(period, dtype=np.int64)
    had = [0] * len(weights)
    waiting = [(0, number) for number in range(len(weights))]  # by the slot that the next turn may have
    ready: list[tuple[int, int]] = []  # by the slot before which it must come
    for slot in range(period):
        while waiting and waiting[0][0] <= slot:
            _, number = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(had[number] + 1) * period // weights[number]), number))
        _, number = heapq.heappop(ready)
        owner[slot], nth[slot] = number, had[number]
        had[number] += 1
        if had[number] < weights[number]:
            heapq.heappush(waiting, (had[number] * period // weights[number], number))
    return Turns(owner, nth, np.asarray(weights, dtype=np.int64))
