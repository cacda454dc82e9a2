"""Watch the memory of a process: when it runs short, caches are halved, then emptied, and work is split."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import psutil

from insight.runtime.errors import ConfigError
from insight.runtime.messages import say
from insight.runtime.numbers import require_number
from insight.runtime.resources import group_memory

_SHRINK_TO = 0.5
_SMALLER = 0.25


class ShrinkableCache(Protocol):
    """A cache that can give memory back: keep about ``share`` of its bytes, or drop everything."""

    def shrink(self, share: float) -> None: ...

    def clear(self) -> None: ...


@dataclass(frozen=True)
class MemoryReading:
    """How close memory use is to its nearest limit."""

    used_bytes: int
    limit_bytes: int
    of: str  # the owner of the limit: "machine", "container" or "process"

    @property
    def share(self) -> float:
        """Fraction of the memory limit in use."""
        return self.used_bytes / self.limit_bytes


@dataclass(frozen=True)
class MemoryThresholds:
    """The fractions of the memory limit at which the watcher acts."""

    relax: float = 0.75  # below, the pressure is over; the gap to the next fraction is a hysteresis
    shrink: float = 0.85  # from here on, every look halves the caches
    clear: float = 0.95  # from here on, caches are emptied

    def __post_init__(self) -> None:
        if not 0 < self.relax < self.shrink < self.clear < 1:
            values = f"relax={self.relax}, shrink={self.shrink}, clear={self.clear}"
            raise ConfigError(f"{values}: must rise between 0 and 1", "use e.g. 0.75, 0.85, 0.95")


class MemoryWatcher:
    """Reads memory use inside :meth:`watching` blocks and acts on the registered caches.

    The first such block starts its thread, and the last one ends and joins it. Caches are held by weak
    references.

    It counts how often it took each action, ``"shrink"``, ``"clear"`` and ``"relax"``, in ``num_events``, and
    keeps the ``newest`` reading. It looks every ``interval`` seconds.
    """

    def __init__(
        self,
        thresholds: MemoryThresholds = MemoryThresholds(),
        read: Callable[[], MemoryReading] | None = None,
        interval: float = 0.2,
    ) -> None:
        require_number("interval", interval, 0.2, above=0)
        self.thresholds = thresholds
        self._read = read_memory if read is None else read
        self._interval = interval
        self._caches: weakref.WeakSet[ShrinkableCache] = weakref.WeakSet()
        self.num_events: Counter[str] = Counter()
        self.newest: MemoryReading | None = None
        self.is_under_pressure = False
        self.start_anew()

    def start_anew(self) -> None:
        """Forget thread, locks and users in a forked child, where no thread runs and a lock may be held."""
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._num_users = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def register(self, cache: ShrinkableCache) -> None:
        """Let ``cache`` shrink when memory runs short."""
        with self._lock:
            self._caches.add(cache)

    @property
    def work_share(self) -> float:
        """The fraction of the usual work to do at once: 1, or a quarter under pressure."""
        return _SMALLER if self.is_under_pressure else 1.0

    def look(self) -> str:
        """Read memory use once and act on it; returns the action, or "" if nothing was done."""
        with self._looking:
            reading = self.newest = self._read()
            if reading.share >= self.thresholds.shrink:
                action = "clear" if reading.share >= self.thresholds.clear else "shrink"
            elif self.is_under_pressure and reading.share < self.thresholds.relax:
                action = "relax"
            else:
                return ""
            is_news = self.is_under_pressure is (action == "relax")
            self.is_under_pressure = action != "relax"
            with self._lock:
                caches = list(self._caches)
            for cache in caches:
                if action == "clear":
                    cache.clear()
                elif action == "shrink":
                    cache.shrink(_SHRINK_TO)
            self.num_events[action] += 1
            if is_news:
                used, limit = (f"{count / 1e9:.1f}" for count in (reading.used_bytes, reading.limit_bytes))
                what = "is plentiful again" if action == "relax" else "runs short"
                then = (
                    "" if action == "relax" else ": caches are dropped and texts encoded in smaller batches"
                )
                say(f"memory {what} ({used} of {limit} GB of the {reading.of}){then}")
            return action

    @contextlib.contextmanager
    def watching(self) -> Iterator[MemoryWatcher]:
        """Look every ``interval`` seconds while the block runs. Blocks may nest and overlap."""
        with self._lock:
            self._num_users += 1
            if self._thread is None:
                self._stop = threading.Event()
                self._thread = threading.Thread(target=self._run, args=(self._stop,), daemon=True)
                self._thread.name = "memory-watcher"
                self._thread.start()
        try:
            yield self
        finally:
            ended = None
            with self._lock:
                self._num_users -= 1
                if self._num_users == 0:
                    ended, self._thread = self._thread, None
                    self._stop.set()
            if ended is not None:
                ended.join()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self._interval):
            self.look()


def read_memory() -> MemoryReading:
    """The reading closest to its limit: the machine, a container of this process, or its address space."""
    machine = psutil.virtual_memory()
    readings = [MemoryReading(machine.total - machine.available, machine.total, "machine")]
    readings += [MemoryReading(used, limit, "container") for used, limit in group_memory()]
    if (limit := _address_space_limit()) is not None:
        readings.append(MemoryReading(int(psutil.Process().memory_info().vms), limit, "process"))
    return max(readings, key=lambda reading: reading.share)


def process_watcher() -> MemoryWatcher:
    """The watcher of this process."""
    return _PROCESS_WATCHER


def _address_space_limit() -> int | None:
    """The limit of ``ulimit -v`` in bytes, or ``None`` if there is no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return limit if 0 < limit < 1 << 60 else None


_PROCESS_WATCHER = MemoryWatcher()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_PROCESS_WATCHER.start_anew)
