"""The checks that every configuration class of a network makes of its numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable

from insight.runtime.errors import ConfigError, nearest

LARGEST_SIZE = 2**24
"""No size of a published network comes near this; beyond it a typing error would fill the memory."""
LARGEST_COUNT = 2**12
"""Most layers, groups or buckets: these are built or listed one by one."""


def require_positive(
    *, minimum: int = 1, maximum: int = LARGEST_SIZE, remedy: str = "", **values: int | None
) -> None:
    """Refuse what is no whole number between two bounds; ``None`` means "derived" and passes.

    Args:
        minimum: Smallest value that is allowed.
        maximum: Largest value that is allowed.
        remedy: Advice for the user; empty for one that names the bounds.
        values: The options by their names.

    Raises:
        ConfigError: A value is no whole number, or lies outside the bounds.
    """
    for name, value in values.items():
        if value is None:
            continue
        advice = remedy or f"use a whole number from {minimum} to {maximum:,}"
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError("must be a whole number", advice, option=name, value=value)
        if value < minimum:
            problem = "must not be negative" if minimum == 0 else f"must be at least {minimum}"
            raise ConfigError(problem, advice, option=name, value=value)
        if value > maximum:
            raise ConfigError(f"must be at most {maximum:,}", advice, option=name, value=value)


def require_number(
    low: float, high: float, remedy: str, *, low_allowed: bool = False, **values: float | None
) -> None:
    """Refuse what is no number between two bounds; ``None`` passes.

    Args:
        low: Lower bound.
        high: Upper bound, which is itself not allowed.
        remedy: Advice for the user.
        low_allowed: Whether the lower bound itself is allowed.
        values: The options by their names.

    Raises:
        ConfigError: A value is no number, or lies outside the bounds.
    """
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            raise ConfigError("must be a number", remedy, option=name, value=value)
        if not (low <= value if low_allowed else low < value) or value >= high:
            lowest = f"at least {low:g}" if low_allowed else f"above {low:g}"
            raise ConfigError(f"must be {lowest} and below {high:g}", remedy, option=name, value=value)


def require_flags(**values: bool) -> None:
    """Refuse what is neither true nor false.

    Raises:
        ConfigError: A value is something else.
    """
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ConfigError("must be true or false", "use true or false", option=name, value=value)


def require_known(option: str, value: object, known: Iterable[str]) -> None:
    """Refuse names that are not in a list.

    Raises:
        ConfigError: There is no such name.
    """
    names = list(known)
    if value not in names:
        match = nearest(str(value), names)
        remedy = f"did you mean {match!r}?" if match else f"use one of {', '.join(names)}"
        raise ConfigError("is unknown", remedy, option=option, value=value)


def divisors(number: int) -> str:
    """The divisors of ``number`` as text: ``"1, 2, 3 or 6"``."""
    values = [str(value) for value in range(1, number + 1) if number % value == 0]
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} or {values[-1]}"
