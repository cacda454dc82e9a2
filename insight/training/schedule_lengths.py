"""Lengths of a run's phases, given in steps, tokens or as a share of the run."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from insight.runtime.errors import ConfigError

Unit = Literal["steps", "tokens", "share"]

_TEXT = re.compile(r"(?P<number>[\d_,]*\.?\d+)\s*(?P<factor>[kMGBT]?)\s*(?P<unit>%|steps?|tokens?|)")
_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_EXAMPLES = "use for example 100, '100 steps', '2M tokens' or '5%' (of the run)"


@dataclass(frozen=True)
class Length:
    """How long a phase of a run is.

    Args:
        value: Steps, tokens, or a share of the run from 0 to 1.
        unit: Which of them.
    """

    value: float
    unit: Unit

    def steps(self, num_steps: int) -> float:
        """The length in a run of ``num_steps`` optimizer steps; a share need not be a whole number of them.

        Raises:
            ConfigError: It is given in tokens, and nobody has said how many a step holds.
        """
        if self.unit == "tokens":
            raise ConfigError(
                f"a length of {self.value:,.0f} tokens: the number of tokens a step is not known here",
                "ask schedule.in_steps(num_tokens_per_step) first",
            )
        return self.value * num_steps if self.unit == "share" else self.value

    def in_steps(self, num_tokens_per_step: int) -> Length:
        """Tokens as the steps that hold them, the last one begun counted whole; others as they are."""
        if self.unit != "tokens":
            return self
        return Length(math.ceil(self.value / num_tokens_per_step), "steps")


def parse_length(name: str, given: float | str, bare_unit: Unit) -> Length:
    """What an option means: a number, or a text such as ``"100 steps"``, ``"2M tokens"`` or ``"5%"``.

    Args:
        name: Of the option, for the error.
        given: Its value.
        bare_unit: Unit of a number without one.

    Raises:
        ConfigError: It is no length, negative, a share above 1, or a part of a step.
    """
    value, unit = _read(name, given, bare_unit)
    if not 0 <= value < math.inf:
        raise ConfigError(f"{name}={given}: must be at least 0", _EXAMPLES)
    if unit == "share" and value > 1:
        raise ConfigError(f"{name}={given}: must lie between 0 and 1, a share of the run", _EXAMPLES)
    if unit != "share" and value != int(value):
        raise ConfigError(f"{name}={given}: must be a whole number of {unit}", _EXAMPLES)
    return Length(value, unit)


def _read(name: str, given: float | str, bare_unit: Unit) -> tuple[float, Unit]:
    if not isinstance(given, str):
        return float(given), bare_unit
    match = _TEXT.fullmatch(given.strip())
    if match is None:
        raise ConfigError(f"{name}={given!r}: is no length", _EXAMPLES)
    # Decimal, since 1.1 times a million is no whole number in binary.
    number = Decimal(match["number"].replace(",", "").replace("_", "")) * _FACTORS[match["factor"]]
    if match["unit"] == "%":
        return float(number / 100), "share"
    if match["unit"]:
        return float(number), "tokens" if match["unit"].startswith("token") else "steps"
    return float(number), bare_unit
