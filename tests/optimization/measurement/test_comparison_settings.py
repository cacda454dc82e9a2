"""The options of a benchmark are checked where they are made, each under its own name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from insight.optimization.measurement import ComparisonSettings
from insight.runtime.errors import ConfigError

WHOLE = ("prompt_length", "num_new_tokens", "num_processes", "seed")


@pytest.mark.parametrize(
    ("option", "value"),
    [("batch_sizes", ()), ("batch_sizes", (1, 0)), ("batch_sizes", (True,)), ("batch_sizes", (1.5,))]
    + [(option, value) for option in WHOLE for value in (-1, 2.5, True, "3", math.nan, math.inf)]
    + [("seconds", value) for value in (0, -1, True, "3", math.nan, math.inf)],
)
def test_values_that_cannot_work(option: str, value: Any) -> None:
    with pytest.raises(ConfigError) as mistake:
        ComparisonSettings(**{option: value})
    assert mistake.value.option == option
    assert mistake.value.remedy


def test_lengths_fill_the_context() -> None:
    settings = ComparisonSettings(batch_sizes=[1, 2]).for_context(64)  # type: ignore[arg-type]
    assert (settings.batch_sizes, settings.prompt_length, settings.num_new_tokens) == ((1, 2), 32, 32)
    with pytest.raises(ConfigError) as mistake:
        ComparisonSettings(prompt_length=60, num_new_tokens=8).for_context(64)
    assert mistake.value.option == "prompt_length"
