"""Quiet Lightning, and the fake clock in place of every callback's."""

from __future__ import annotations

import functools
import logging
import types

import pytest
from fake_clock import FakeClock

from insight.callbacks import throughput


@pytest.fixture(autouse=True)
def _quiet_lightning() -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The clock of every callback in the test."""
    fake = FakeClock()
    monkeypatch.setattr(throughput, "StepClock", functools.partial(throughput.StepClock, now=fake))
    monkeypatch.setattr(throughput, "time", types.SimpleNamespace(monotonic=fake, time=fake))
    return fake
