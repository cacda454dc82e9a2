"""Checks of the options of networks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError, nearest

LARGEST_SIZE = 2**24
"""The largest size: no published network comes near it, and a larger typing error would fill the memory."""
LARGEST_COUNT = 2**12
"""The highest number of layers, groups or buckets, which are built or listed one by one."""


def require(holds: bool, problem: str, remedy: str, **option: object) -> None:
    """Refuse the value of an option unless ``holds``; a component is shown by its class."""
    if not holds:
        ((name, value),) = option.items()
        shown = type(value).__name__ if isinstance(value, Component) else value
        raise ConfigError(problem, remedy, option=name, value=shown)


def require_positive(
    *, minimum: int = 1, maximum: int = LARGEST_SIZE, remedy: str = "", **values: int | None
) -> None:
    """Refuse options that are not whole numbers from ``minimum`` to ``maximum``; ``None`` means "derived".

    An empty ``remedy`` names the bounds.
    """
    advice = remedy or f"use a whole number from {minimum} to {maximum:,}"
    for name, value in values.items():
        if value is None:
            continue
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
    """Refuse options that are not numbers between two bounds, themselves not allowed; ``None`` is."""
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            raise ConfigError("must be a number", remedy, option=name, value=value)
        if not (low <= value if low_allowed else low < value) or value >= high:
            lowest = f"at least {low:g}" if low_allowed else f"above {low:g}"
            raise ConfigError(f"must be {lowest} and below {high:g}", remedy, option=name, value=value)


def require_flags(component: Component) -> None:
    """Refuse a component with a boolean option that is neither true nor false."""
    for field in dataclasses.fields(component):
        value = getattr(component, field.name)
        if field.type in ("bool", bool) and not isinstance(value, bool):
            raise ConfigError("must be true or false", "use true or false", option=field.name, value=value)


def require_known(option: str, value: object, known: Iterable[str]) -> None:
    """Refuse a name that is not in ``known``; the error names the nearest one, or all."""
    names = list(known)
    if value not in names:
        match = nearest(str(value), names)
        remedy = f"did you mean {match!r}?" if match else f"use one of {', '.join(names)}"
        raise ConfigError("is unknown", remedy, option=option, value=value)


def require_divisor(whole: str, number: int, **part: int | None) -> None:
    """Refuse the value of an option that does not divide ``number``, the value of the option ``whole``."""
    ((name, value),) = part.items()
    if value is not None and number % value:
        divisors = ", ".join(str(divisor) for divisor in range(1, number + 1) if number % divisor == 0)
        remedy = f"use {' or '.join(divisors.rsplit(', ', 1))}"
        raise ConfigError(f"must divide {whole}={number}", remedy, option=name, value=value)
