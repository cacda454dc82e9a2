"""Durations as SLURM writes them."""

from __future__ import annotations

import pytest

from insight.api.run_config import duration_in_seconds
from insight.runtime.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90),
        (0.5, 0.5),
        ("90", 90),
        ("1.5", 1.5),
        ("10:30", 630),
        ("01:00:00", 3600),
        ("2-12:00:01", 2 * 86_400 + 12 * 3600 + 1),
        (" 00:00:30 ", 30),
    ],
)
def test_durations(text: float | str, seconds: float) -> None:
    assert duration_in_seconds("run.time_limit", text) == seconds


@pytest.mark.parametrize("text", [0, -1, "00:00:00", "an hour", "1:2:3:4", "", "nan", "inf", "1h"])
def test_what_is_no_duration_is_refused(text: float | str) -> None:
    with pytest.raises(ConfigError) as error:
        duration_in_seconds("run.time_limit", text)
    assert error.value.option == "run.time_limit"
