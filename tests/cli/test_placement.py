"""Which device is a process's own."""

from __future__ import annotations

from typing import Any

import pytest

from insight.api.placement import device_number


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ("auto", [0, 1]),
        (2, [0, 1]),
        ("2", [0, 1]),
        (-1, [0, 1]),
        (None, [0, 1]),
        ([3, 5], [3, 5]),
        ("3,5", [3, 5]),
        ("3, 5,", [3, 5]),
    ],
)
def test_each_process_has_a_device_of_its_own(given: Any, numbers: list[int]) -> None:
    assert [device_number(given, local_rank) for local_rank in range(2)] == numbers
