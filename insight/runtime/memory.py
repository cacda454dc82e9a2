"""How much memory this process holds, now and at its worst."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import psutil

_HIGH_WATER_MARK = re.compile(r"^VmHWM:\s*(\d+) kB", re.MULTILINE)


def resident_bytes() -> int:
    """Physical memory this process holds now, in bytes (shared pages included)."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """The most physical memory this process has held since its start, in bytes.

    Linux: ``VmHWM`` of ``/proc/self/status`` (proc(5)); ``getrusage`` would report the peak of the parent
    when that was larger, since ``ru_maxrss`` survives ``exec``. Elsewhere what the system offers.
    """
    try:
        match = _HIGH_WATER_MARK.search(
            Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        )
    except OSError:
        match = None
    if match:
        # The kernel counts resident pages in batches per thread, so the mark may trail by some pages.
        return max(int(match[1]) * 1024, resident_bytes())
    peak = getattr(psutil.Process().memory_info(), "peak_wset", 0)  # Windows
    if not peak and sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return max(int(peak), resident_bytes())
