"""ThroughputMonitor and MemoryMonitor: what they log, and that logging it costs next to nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from fake_clock import FakeClock, Workload
from lightning.pytorch.loggers import Logger
from tiny_run import TinyData, tiny_fit

from insight.callbacks import throughput
from insight.callbacks.checkpointing import RunCheckpoint
from insight.callbacks.monitors import MemoryMonitor
from insight.callbacks.throughput import StepTiming, ThroughputMonitor
from insight.callbacks.trainer import steps_per_validation
from insight.runtime.resources import resident_bytes


class Collect(Logger):
    """Keeps what is logged, by step."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[int, dict[str, float]] = {}

    name = version = "collect"  # type: ignore[assignment]

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.records.setdefault(step or 0, {}).update(metrics)


def logged(logger: Collect, name: str) -> dict[int, float]:
    return {step: record[name] for step, record in logger.records.items() if name in record}


def test_throughput_is_that_of_training_alone(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "matmul_rate", lambda precision: 1e6)
    logger = Collect()
    # 4 windows of 8 tokens in 0.1 s; validations, samples and saves take many times longer.
    callbacks = [
        ThroughputMonitor(),
        Workload(clock, batch=0.1, validation=7.0, save=3.0),
        RunCheckpoint(every_n_steps=3),
    ]
    tiny_fit(tmp_path, callbacks, logger=logger, max_steps=40)
    rates = logged(logger, "throughput/tokens_per_second")
    assert list(rates.values()) == pytest.approx([320] * len(rates))
    assert min(rates) == 3, "two steps to warm up, and the third has to end"
    flops_per_token = 6 * 16 * 32
    shares = logged(logger, "throughput/matmul_share")
    assert list(shares.values()) == pytest.approx([320 * flops_per_token / 1e6] * len(rates))


def test_the_share_test_notices_a_clock_that_counts_pauses(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StepTiming, "on_validation_start", lambda *args: None)
    logger = Collect()
    tiny_fit(tmp_path, [ThroughputMonitor(), Workload(clock, 0.1, 7.0)], logger=logger, max_steps=40)
    assert min(logged(logger, "throughput/tokens_per_second").values()) < 200


def test_seconds_left_include_the_validations(tmp_path: Path, clock: FakeClock) -> None:
    logger = Collect()
    workload = Workload(clock, batch=0.1, validation=2.0)
    tiny_fit(tmp_path, [ThroughputMonitor(), workload], logger=logger, max_steps=100)
    left = logged(logger, "throughput/seconds_left")
    # At step 50, 50 steps and 5 validations are to come.
    assert left[50] == pytest.approx(5 + 10, rel=0.1)
    assert left[99] == pytest.approx(0.0, abs=0.3)


def test_an_unknown_machine_or_network_has_no_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "matmul_rate", lambda precision: None)
    logger = Collect()
    monitor = ThroughputMonitor()
    tiny_fit(tmp_path, [monitor], logger=logger)
    assert logged(logger, "throughput/matmul_share") == {}
    assert monitor.matmul_share is None
    assert monitor.clock.tokens_per_second


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"val_check_interval": 10}, 10),
        ({"val_check_interval": 7}, 10),  # twice in an epoch of 20 batches
        ({"val_check_interval": 0.25}, 5),
        ({"val_check_interval": 1.0, "check_val_every_n_epoch": 2}, 40),
        ({"val_check_interval": 30, "check_val_every_n_epoch": None}, 30),
        ({"val_check_interval": 10, "accumulate_grad_batches": 2}, 5),
        ({"limit_val_batches": 0}, math.inf),
    ],
)
def test_steps_per_validation(tmp_path: Path, options: dict[str, Any], expected: float) -> None:
    trainer, _ = tiny_fit(tmp_path, data=TinyData(), max_steps=1, **options)
    assert steps_per_validation(trainer) == expected


def test_memory_is_logged(tmp_path: Path) -> None:
    logger = Collect()
    tiny_fit(tmp_path, [MemoryMonitor()], logger=logger, log_every_n_steps=5)
    resident = logged(logger, "memory/resident_bytes")
    peak = logged(logger, "memory/peak_bytes")
    assert list(resident) == [4, 9, 14, 19, 24, 29]
    assert all(peak[step] >= 0.99 * resident[step] for step in resident)
    assert resident[29] == pytest.approx(resident_bytes(), rel=0.3)
