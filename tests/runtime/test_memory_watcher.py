"""When memory runs short caches shrink before the limit is reached, and nothing keeps running afterwards."""

from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from insight.runtime import resources as limits
from insight.runtime.errors import ConfigError
from insight.runtime.memory_watcher import (
    MemoryReading,
    MemoryThresholds,
    MemoryWatcher,
    process_watcher,
    read_memory,
)


class Cache:
    """Writes down what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def shrink(self, share: float) -> None:
        self.asked.append(share)

    def clear(self) -> None:
        self.asked.append("clear")


class Gauge:
    """A reading that the test sets."""

    def __init__(self) -> None:
        self.percent = 0

    def __call__(self) -> MemoryReading:
        return MemoryReading(self.percent, 100, "machine")


def test_hysteresis(capsys: pytest.CaptureFixture[str]) -> None:
    gauge, cache = Gauge(), Cache()
    watcher = MemoryWatcher(MemoryThresholds(0.5, 0.7, 0.9), gauge)
    watcher.register(cache)
    done = []
    for gauge.percent in (10, 69, 70, 69, 51, 71, 95, 60, 50, 49, 60, 69, 70):
        done.append((gauge.percent, watcher.look(), watcher.work_share))
    assert done == [
        (10, "", 1.0),
        (69, "", 1.0),
        (70, "shrink", 0.25),
        (69, "", 0.25),  # still short: only below 50 it is over
        (51, "", 0.25),
        (71, "shrink", 0.25),
        (95, "clear", 0.25),
        (60, "", 0.25),
        (50, "", 0.25),
        (49, "relax", 1.0),
        (60, "", 1.0),
        (69, "", 1.0),
        (70, "shrink", 0.25),
    ]
    assert cache.asked == [0.5, 0.5, "clear", 0.5]
    assert watcher.num_events == {"shrink": 3, "clear": 1, "relax": 1}
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3  # once when it begins and once when it ends, not at every look
    assert "memory runs short" in said[0]


def test_the_thread_lives_as_long_as_somebody_watches() -> None:
    gauge, cache = Gauge(), Cache()
    watcher = MemoryWatcher(read=gauge, interval=0.005)
    watcher.register(cache)
    before = threading.active_count()
    with watcher.watching():
        with watcher.watching():
            assert threading.active_count() == before + 1
        assert threading.active_count() == before + 1
        gauge.percent = 99
        deadline = time.monotonic() + 5
        while not cache.asked and time.monotonic() < deadline:
            time.sleep(0.005)
    assert threading.active_count() == before
    assert cache.asked[0] == "clear"
    count = len(cache.asked)
    time.sleep(0.05)
    assert len(cache.asked) == count


def test_it_ends_when_the_block_fails() -> None:
    watcher = MemoryWatcher(read=Gauge(), interval=0.005)
    before = threading.active_count()
    with pytest.raises(KeyError), watcher.watching():
        raise KeyError
    assert threading.active_count() == before


@pytest.mark.slow
def test_registering_keeps_no_cache_alive() -> None:
    watcher = MemoryWatcher(read=Gauge())
    watcher.register(Cache())
    gc.collect()
    assert len(watcher._caches) == 0


def _watch_in_child(connection: object) -> None:
    with process_watcher().watching():
        connection.send([thread.name for thread in threading.enumerate()])  # type: ignore[attr-defined]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_starts_its_own_thread() -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    with process_watcher().watching():
        child = context.Process(target=_watch_in_child, args=(theirs,))
        child.start()
        assert ours.poll(20)
        assert "memory-watcher" in ours.recv()
        child.join(20)
    assert child.exitcode == 0


CHILD = """
import resource, sys, time
import psutil
from insight.data.tokenizers.segments import LRUCache
from insight.runtime.memory_watcher import process_watcher

room = 300 << 20
limit = psutil.Process().memory_info().vms + room
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
cache = LRUCache(10_000, 10_000 << 20)
if sys.argv[1] == "watched":
    process_watcher().register(cache)
most, largest_cache = 0, 0
try:
    with process_watcher().watching() as watcher:
        watcher._interval = 0.01
        for number in range(150):  # 600 MB in all, twice the room
            cache.put(number, b"x" * (4 << 20))
            most = max(most, psutil.Process().memory_info().vms)
            largest_cache = max(largest_cache, cache.statistics().num_bytes)
            time.sleep(0.02)
except MemoryError:
    cache.clear()
    print("out of memory")
    raise SystemExit(3)
print(most < limit, "shrink" in watcher.num_events, cache.statistics().evictions > 0, largest_cache < room)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
@pytest.mark.parametrize("kind", ["watched", "unwatched"])
def test_a_real_cache_shrinks_before_a_real_limit(kind: str) -> None:
    """A child may have 300 MB more and caches 600 MB; without a watcher the same child runs out of memory."""
    done = subprocess.run([sys.executable, "-c", CHILD, kind], capture_output=True, text=True, check=False)
    if kind == "watched":
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["True"] * 4
        assert "memory runs short" in done.stderr
    else:
        assert done.returncode == 3, done.stderr


def test_the_tightest_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    (root / "team" / "job").mkdir(parents=True)
    own.write_text("0::/team/job\n")
    monkeypatch.setattr(limits, "_CGROUP_ROOT", root)
    monkeypatch.setattr(limits, "_OWN_CGROUPS", own)
    assert read_memory().of in ("machine", "process")
    for folder, used, limit in ((root / "team" / "job", "900000", "1000000"), (root / "team", "10", "max")):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text("anon 7\ninactive_file 20000\nactive_file 5\n")
    reading = read_memory()
    # Pages that the kernel would give back count as free.
    assert (reading.used_bytes, reading.limit_bytes, reading.of) == (880_000, 1_000_000, "container")
    assert reading.share == 0.88


def test_control_groups_of_version_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    folder = root / "memory" / "job"
    folder.mkdir(parents=True)
    own.write_text("4:memory:/job\n0::/\n")
    monkeypatch.setattr(limits, "_CGROUP_ROOT", root)
    monkeypatch.setattr(limits, "_OWN_CGROUPS", own)
    (folder / "memory.limit_in_bytes").write_text("1000\n")
    (folder / "memory.usage_in_bytes").write_text("700\n")
    assert limits.group_memory() == [(700, 1000)]
    (folder / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 300\n")
    assert limits.group_memory() == [(400, 1000)]
    (folder / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert limits.group_memory() == []


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError, match="must rise between 0 and 1"):
        MemoryThresholds(0.9, 0.8, 0.95)
    with pytest.raises(ConfigError) as error:
        MemoryWatcher(interval=0)
    assert (error.value.option, error.value.value) == ("interval", 0)
