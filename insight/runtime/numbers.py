"""Checks that a number from a user is finite and within its range, and neither text nor a boolean."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from insight.runtime.errors import ConfigError


def require_number(
    option: str,
    value: Any,
    example: object,
    *,
    whole: bool = False,
    optional: bool = False,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Refuse a value that is not a finite number within a range with a :class:`ConfigError`.

    Booleans are no numbers. ``at_least`` and ``at_most`` include the bound, ``above`` and ``below`` exclude
    it; ``example`` is a value that works, for the remedy.
    """
    if optional and value is None:
        return
    is_number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if is_number and (isinstance(value, Integral) or math.isfinite(value)):
        is_large_enough = (at_least is None or value >= at_least) and (above is None or value > above)
        if is_large_enough and (at_most is None or value <= at_most) and (below is None or value < below):
            return
    bounds = (("at least", at_least), ("above", above), ("at most", at_most), ("below", below))
    span = " and ".join(f"{words} {bound}" for words, bound in bounds if bound is not None)
    noun = "a whole number" if whole else "a number"
    problem = f"must be {noun}{span and ', '}{span}"
    raise ConfigError(problem, f"use for example {example}", option=option, value=value)
