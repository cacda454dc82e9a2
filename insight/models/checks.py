"""Checks of the options of networks."""

from __future__ import annotations

import math
from collections.abc import Iterable

from insight.runtime.errors import ConfigError, nearest

LARGEST_SIZE = 2**24
"""The largest size: no published network comes near it, and a larger typing error would fill the memory."""
LARGEST_COUNT = 2**12
"""The highest number of layers, groups or buckets, which are built or listed one by one."""


def require_positive(
    *, minimum: int = 1, maximum: int = LARGEST_SIZE, remedy: str = "", **values: int | None
) -> None:
    """Refuse values that are not whole numbers between two bounds; ``None`` means "derived" and is allowed.

    Args:
        minimum: Smallest allowed value.
        maximum: Largest allowed value.
        remedy: Advice for the user; if empty, it names the bounds.
        values: The options by name.

    Raises:
        ConfigError: A value is not a whole number, or lies outside the bounds.
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
    """Refuse values that are not numbers between two bounds; ``None`` is allowed.

    Args:
        low: Lower bound.
        high: Upper bound, which is itself not allowed.
        remedy: Advice for the user.
        low_allowed: Whether the lower bound itself is allowed.
        values: The options by name.

    Raises:
        ConfigError: A value is not a number, or lies outside the bounds.
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
    """Refuse values that are neither true nor false.

    Raises:
        ConfigError: A value is something else.
    """
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ConfigError("must be true or false", "use true or false", option=name, value=value)


def require_known(option: str, value: object, known: Iterable[str]) -> None:
    """Refuse names that are not in a list.

    Raises:
        ConfigError: The name is not in the list.
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
