"""Cores and memory after affinity and container limits, read from copies of what kernels write."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from insight.runtime import resources as limits
from insight.runtime.resources import usable_cores, usable_memory_bytes


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty control group tree; the process is in ``/team/job`` of it."""
    root = tmp_path / "cgroup"
    (root / "team" / "job").mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("0::/team/job\n")
    monkeypatch.setattr(limits, "_CGROUP_ROOT", root)
    monkeypatch.setattr(limits, "_OWN_CGROUPS", own)
    monkeypatch.setattr(limits, "_affinity", lambda: 64)
    return root


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 64),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("junk", 64),
        ("1 0", 64),
    ],
)
def test_quota_of_version_two(cgroup: Path, quota: str, cores: int) -> None:
    (cgroup / "team" / "job" / "cpu.max").write_text(f"{quota}\n")
    assert usable_cores() == cores


def test_the_smallest_quota_above_counts(cgroup: Path) -> None:
    (cgroup / "team" / "job" / "cpu.max").write_text("max 100000\n")
    (cgroup / "team" / "cpu.max").write_text("300000 100000\n")
    assert usable_cores() == 3


def test_a_neighbours_quota_does_not_count(cgroup: Path) -> None:
    (cgroup / "team" / "other").mkdir()
    (cgroup / "team" / "other" / "cpu.max").write_text("100000 100000\n")
    assert usable_cores() == 64


def test_quota_of_version_one(cgroup: Path) -> None:
    (limits._OWN_CGROUPS).write_text("3:cpuset:/\n2:cpu,cpuacct:/job\n1:memory:/job\n")
    for name, value in (("cpu.cfs_quota_us", "400000"), ("cpu.cfs_period_us", "100000")):
        folder = cgroup / "cpu" / "job"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(value)
    assert usable_cores() == 4
    (cgroup / "cpu" / "job" / "cpu.cfs_quota_us").write_text("-1")
    assert usable_cores() == 64


def test_no_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_CGROUP_ROOT", tmp_path / "nothing")
    monkeypatch.setattr(limits, "_OWN_CGROUPS", tmp_path / "nothing")
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    assert usable_memory_bytes() == psutil.virtual_memory().total


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_affinity_of_this_process() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("text", "expected"), [("1000000", 1_000_000), ("max", None), ("9223372036854771712", None), ("0", None)]
)
def test_memory_limit(cgroup: Path, text: str, expected: int | None) -> None:
    (cgroup / "team" / "job" / "memory.max").write_text(f"{text}\n")
    assert usable_memory_bytes() == (expected or psutil.virtual_memory().total)
