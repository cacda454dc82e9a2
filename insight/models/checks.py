"""Checks that every configuration class of a network makes of its numbers."""

from __future__ import annotations

from insight.runtime.errors import ConfigError


def require_positive(**values: int | None) -> None:
    """Refuse values below 1; ``None`` means "derived" and passes.

    Raises:
        ConfigError: A value is zero or negative.
    """
    for name, value in values.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value}: {name} must be at least 1", f"set {name} to 1 or more")


def divisors(number: int) -> str:
    """The divisors of ``number`` as text: ``"1, 2, 3 or 6"``."""
    values = [str(value) for value in range(1, number + 1) if number % value == 0]
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} or {values[-1]}"
