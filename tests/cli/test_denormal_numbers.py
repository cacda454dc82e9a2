"""Commands that compute take denormal numbers for zero."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from insight.api.configuration import choose_for_this_machine
from insight.runtime.hardware import usable_device


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


def product() -> float:
    return float((torch.tensor([1e-30]) * 1e-10).item())


@pytest.mark.parametrize("command", ["training and measuring", "writing and compressing"])
def test_both_ways_into_a_command_flush(command: str) -> None:
    if not torch.set_flush_denormal(False) and not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot")
    torch.set_flush_denormal(False)
    assert product() > 0
    if command == "training and measuring":
        choose_for_this_machine(1, "32-true")
    else:
        usable_device("cpu")
    assert product() == 0
