"""The order in which things that are compared take their turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Contender = TypeVar("Contender")


def turns(contenders: Sequence[Contender], round_index: int) -> list[Contender]:
    """Who goes first, second, … in a round.

    Every second round runs backwards, and every second one begins one further: A B, B A, B A, A B. What
    drifts slowly (a clock that falls as the machine warms up, a neighbour that comes and goes) then costs
    all the same, and none always comes after the same other one.

    Args:
        contenders: All that are compared.
        round_index: 0, 1, 2, …
    """
    shift = round_index // 2 % max(1, len(contenders))
    order = [*contenders[shift:], *contenders[:shift]]
    return order[::-1] if round_index % 2 else order
