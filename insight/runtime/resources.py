"""The cores and the memory that this process may use, and the memory that it holds."""

from __future__ import annotations

import math
import os
import re
import sys
from pathlib import Path

import psutil

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
# cgroup v1 writes "no limit" as the largest page-aligned 64-bit number.
_UNLIMITED = 1 << 60
# Files of control groups with the limit and the use of memory, and the pages that the kernel frees first.
_MEMORY_FILES = {
    "memory.max": ("memory.current", "inactive_file"),
    "memory.limit_in_bytes": ("memory.usage_in_bytes", "total_inactive_file"),
}


def usable_cores() -> int:
    """Cores that this process may use: CPU affinity, then the container's quota (rounded up), at least 1."""
    cores, quota = _affinity(), _cpu_quota()
    return max(1, min(cores, math.ceil(quota)) if quota else cores)


def usable_memory_bytes() -> int:
    """Physical memory, or the container's limit where that is lower, in bytes."""
    limits = (_number(place) for name in _MEMORY_FILES for place in _places("memory", name))
    return min([psutil.virtual_memory().total, *(limit for limit in limits if 0 < limit < _UNLIMITED)])


def group_memory() -> list[tuple[int, int]]:
    """``(used, limit)`` in bytes of every control group of this process that limits memory.

    Used memory excludes file pages that the kernel frees first (``inactive_file`` of ``memory.stat``,
    https://docs.kernel.org/admin-guide/cgroup-v2.html).
    """
    found = []
    for limit_name, (used_name, inactive) in _MEMORY_FILES.items():
        for place in _places("memory", limit_name):
            limit, used = _number(place), _number(place.with_name(used_name))
            if used >= 0 and 0 < limit < _UNLIMITED:
                rows = (line.split() for line in _read(place.with_name("memory.stat")).splitlines())
                stat = {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdecimal()}
                found.append((max(0, used - stat.get(inactive, 0)), limit))
    return found


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows do not have this function
        return os.cpu_count() or 1


def _cpu_quota() -> float | None:
    """The smallest CPU quota of this process's control groups, in cores.

    cgroup v2 writes ``"<microseconds or max> <period>"`` into ``cpu.max``, v1 uses two files
    (https://docs.kernel.org/admin-guide/cgroup-v2.html, .../scheduler/sched-bwc.html).
    """
    pairs = [_read(place).split() for place in _places("cpu", "cpu.max")]
    for place in _places("cpu", "cpu.cfs_quota_us"):
        pairs.append([_read(place), _read(place.with_name("cpu.cfs_period_us"))])
    quotas = [
        int(pair[0]) / int(pair[1])
        for pair in pairs
        if len(pair) == 2 and all(part.isdecimal() and int(part) for part in pair)
    ]
    return min(quotas, default=None)


def _places(controller: str, name: str) -> list[Path]:
    """Files ``name`` that may limit this process: those of its group and of every group above."""
    groups = [""]
    for line in _read(_OWN_CGROUPS).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" or controller in controllers.split(","):
            groups.append(path.strip("/"))
    roots = (_CGROUP_ROOT, _CGROUP_ROOT / controller, _CGROUP_ROOT / "cpu,cpuacct")
    folders = {
        root.joinpath(*parts[:depth])
        for root in roots
        for parts in (group.split("/") for group in groups)
        for depth in range(len(parts) + 1)
    }
    return [folder / name for folder in sorted(folders) if (folder / name).is_file()]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    """The number in a file, or -1."""
    text = _read(path)
    return int(text) if text.isdecimal() else -1


_HIGH_WATER_MARK = re.compile(r"^VmHWM:\s*(\d+) kB", re.MULTILINE)


def resident_bytes() -> int:
    """Physical memory that this process holds now, in bytes (shared pages included)."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """The most physical memory that this process has held since its start, in bytes.

    On Linux this is ``VmHWM`` of ``/proc/self/status`` (proc(5)), since ``ru_maxrss`` survives ``exec`` and
    would report a larger peak of the parent. Other systems report their own peak.
    """
    if match := _HIGH_WATER_MARK.search(_read(Path("/proc/self/status"))):
        # The kernel counts resident pages in batches per thread, so the peak may be some pages too small.
        return max(int(match[1]) * 1024, resident_bytes())
    peak = getattr(psutil.Process().memory_info(), "peak_wset", 0)  # Windows
    if not peak and sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return max(int(peak), resident_bytes())
