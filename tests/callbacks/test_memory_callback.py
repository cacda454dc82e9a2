"""MemoryMonitor: what the watcher sees and does is logged, and a run with a real limit survives it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from test_monitors import Collect, logged
from tiny_run import TinyModule, tiny_fit

from insight.callbacks.monitors import MemoryMonitor
from insight.runtime.errors import ConfigError
from insight.runtime.memory_watcher import MemoryReading, MemoryThresholds, process_watcher


@pytest.fixture
def gauge(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the watcher of this process reads, in percent."""
    percent = [10]
    watcher = process_watcher()
    monkeypatch.setattr(watcher, "_read", lambda: MemoryReading(percent[0], 100, "machine"))
    monkeypatch.setattr(watcher, "_interval", 3600)  # the test looks itself
    yield percent  # type: ignore[misc]
    percent[0] = 10
    watcher.look()


def test_what_the_watcher_does_is_logged(
    tmp_path: Path, gauge: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = TinyModule.training_step
    watcher = process_watcher()
    watcher.num_events.clear()
    seen: list[float] = []

    def looking(self: TinyModule, batch: object, index: int) -> torch.Tensor:
        gauge[0] = {3: 90, 4: 90, 5: 97, 8: 80, 9: 50}.get(index, gauge[0])
        watcher.look()
        seen.append(watcher.work_share)
        return step(self, batch, index)  # type: ignore[arg-type]

    monkeypatch.setattr(TinyModule, "training_step", looking)
    logger = Collect()
    tiny_fit(tmp_path, [MemoryMonitor()], logger=logger, max_steps=12, limit_val_batches=0)
    shrinks, clears = (logged(logger, f"memory/num_{name}") for name in ("shrinks", "clears"))
    assert min(shrinks) == min(clears) == 3, "nothing happened before"
    assert [shrinks[number] for number in range(3, 7)] == [1, 2, 2, 2]
    assert [clears[number] for number in range(3, 7)] == [0, 0, 1, 2]
    assert logged(logger, "memory/limit_share")[5] == pytest.approx(0.97)
    work = logged(logger, "memory/work_share")
    assert [work[number] for number in range(3, 12)] == seen[3:]
    assert (work[5], work[8], work[9]) == (0.25, 0.25, 1)


def test_watching_ends_with_the_run_also_when_it_fails(
    tmp_path: Path, gauge: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def names() -> list[str]:
        return [thread.name for thread in threading.enumerate()]

    usual = process_watcher().thresholds
    during: list[object] = []
    step = TinyModule.training_step

    def looking(self: TinyModule, batch: object, index: int) -> torch.Tensor:
        during.append(("memory-watcher" in names(), process_watcher().thresholds))
        if len(during) == 3:
            raise KeyError
        return step(self, batch, index)  # type: ignore[arg-type]

    monkeypatch.setattr(TinyModule, "training_step", looking)
    tiny_fit(tmp_path, [MemoryMonitor(0.5, 0.6, 0.7)], max_steps=2)
    assert during == [(True, MemoryThresholds(0.5, 0.6, 0.7))] * 2
    assert "memory-watcher" not in names()
    with pytest.raises(KeyError):
        tiny_fit(tmp_path, [MemoryMonitor(0.5, 0.6, 0.7)], max_steps=2)
    assert "memory-watcher" not in names()
    assert process_watcher().thresholds == usual


CHILD = """
import resource, sys
from pathlib import Path
import psutil, torch
from test_monitors import Collect, logged
from tiny_run import TinyModule, tiny_fit
from insight.callbacks.monitors import MemoryMonitor
from insight.data.tokenizers.segments import LRUCache
from insight.runtime.memory_watcher import process_watcher

torch.set_num_threads(1)
folder = Path(sys.argv[1])
tiny_fit(folder, [], max_steps=1)  # whatever libraries load on first use is loaded
cache = LRUCache(10_000, 10_000 << 20)
process_watcher().register(cache)
step, number = TinyModule.training_step, 0

def hungry(self, batch, index):
    global number
    for _ in range(4):  # 960 MB in all, of which the limit leaves room for 500
        number += 1
        cache.put(number, b"x" * (4 << 20))
    return step(self, batch, index)

TinyModule.training_step = hungry
limit = psutil.Process().memory_info().vms + (500 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
process_watcher()._interval = 0.01
logger = Collect()
try:
    tiny_fit(folder, [MemoryMonitor()] if sys.argv[2] == "watched" else [], logger=logger, max_steps=60)
except MemoryError:
    cache.clear()
    raise SystemExit(3)
shrinks = logged(logger, "memory/num_shrinks")
shares = logged(logger, "memory/limit_share")
print(max(shrinks.values()) > 0, min(logged(logger, "memory/work_share").values()) < 1, max(shares) == 59)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
@pytest.mark.parametrize("kind", ["watched", "unwatched"])
def test_a_run_with_a_real_limit_shrinks_before_it(tmp_path: Path, kind: str) -> None:
    """Caches want twice what the limit leaves; without the callback the same run is out of memory."""
    here = str(Path(__file__).parent)
    environment = os.environ | {"PYTHONPATH": here, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), kind],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if kind == "watched":
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-3:] == ["True"] * 3
    else:
        assert done.returncode == 3, done.stderr


def test_thresholds_must_rise() -> None:
    with pytest.raises(ConfigError, match="must rise between 0 and 1"):
        MemoryMonitor(shrink=0.99)
