"""Watch the memory of a process: when it runs short, caches are halved, then emptied, and work is split."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import psutil

from insight.runtime.errors import ConfigError
from insight.runtime.messages import say
from insight.runtime.resources import group_memory

_SHRINK_TO = 0.5
_SMALLER = 0.25
_REMEMBERED_EVENTS = 256


class ShrinkableCache(Protocol):
    """A cache that can give memory back."""

    def shrink(self, share: float) -> None:
        """Keep about ``share`` of the bytes that are held now."""

    def clear(self) -> None:
        """Drop everything."""


@dataclass(frozen=True)
class MemoryReading:
    """How close memory use is to its nearest limit.

    Attributes:
        used_bytes: Bytes in use.
        limit_bytes: Bytes that may be used.
        of: The owner of the limit: ``"machine"``, ``"container"`` or ``"process"``.
    """

    used_bytes: int
    limit_bytes: int
    of: str

    @property
    def share(self) -> float:
        """Fraction of the memory limit in use."""
        return self.used_bytes / self.limit_bytes


@dataclass(frozen=True)
class MemoryThresholds:
    """The fractions of the memory limit at which the watcher acts.

    Attributes:
        relax: Below this fraction the pressure is over. It lies below ``shrink``, so that a fraction near
            one threshold does not switch back and forth (hysteresis).
        shrink: From this fraction on, every look halves the caches.
        clear: From this fraction on, caches are emptied.
    """

    relax: float = 0.75
    shrink: float = 0.85
    clear: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.relax < self.shrink < self.clear < 1:
            raise ConfigError(
                f"relax={self.relax}, shrink={self.shrink}, clear={self.clear}: must rise between 0 and 1",
                "use e.g. 0.75, 0.85, 0.95",
            )


@dataclass(frozen=True)
class MemoryEvent:
    """One action of the watcher.

    Attributes:
        action: ``"shrink"``, ``"clear"`` or ``"relax"``.
        reading: The reading that caused it.
        seconds: The time on the monotonic clock.
    """

    action: str
    reading: MemoryReading
    seconds: float


class MemoryWatcher:
    """Reads memory use inside :meth:`watching` blocks and acts on the registered caches.

    The first such block starts its thread, and the last one ends and joins it. A program may also call
    :meth:`look` itself. The watcher holds caches by weak references, so it keeps none alive.

    Args:
        thresholds: The fractions at which it acts.
        read: A function that reads how much memory is in use.
        interval: Seconds between two looks.

    Attributes:
        events: Its newest actions.
        num_events: How often it took each action: ``"shrink"``, ``"clear"``, ``"relax"``.
        newest: The reading of its last look; ``None`` before the first.
    """

    def __init__(
        self,
        thresholds: MemoryThresholds = MemoryThresholds(),
        read: Callable[[], MemoryReading] | None = None,
        interval: float = 0.2,
    ) -> None:
        if not interval > 0:
            raise ConfigError("must be above 0 seconds", "use 0.2", option="interval", value=interval)
        self.thresholds = thresholds
        self._read = read_memory if read is None else read
        self._interval = interval
        self._caches: weakref.WeakSet[ShrinkableCache] = weakref.WeakSet()
        self.events: deque[MemoryEvent] = deque(maxlen=_REMEMBERED_EVENTS)
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

    def look(self) -> MemoryEvent | None:
        """Read memory use once and act on it; returns the event, or ``None`` if nothing was done."""
        with self._looking:
            reading = self.newest = self._read()
            if reading.share >= self.thresholds.clear:
                action = "clear"
            elif reading.share >= self.thresholds.shrink:
                action = "shrink"
            elif self.is_under_pressure and reading.share < self.thresholds.relax:
                action = "relax"
            else:
                return None
            event = MemoryEvent(action, reading, time.monotonic())
            is_news = self.is_under_pressure is (action == "relax")
            self.is_under_pressure = action != "relax"
            self._act(action)
            self.events.append(event)
            self.num_events[action] += 1
            if is_news:
                say(_sentence(event))
            return event

    @contextlib.contextmanager
    def watching(self) -> Iterator[MemoryWatcher]:
        """Look every ``interval`` seconds while the block runs. Blocks may nest and overlap."""
        with self._lock:
            self._num_users += 1
            if self._thread is None:
                self._stop = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(self._stop,), name="memory-watcher", daemon=True
                )
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

    def _act(self, action: str) -> None:
        with self._lock:
            caches = list(self._caches)
        for cache in caches:
            if action == "clear":
                cache.clear()
            elif action == "shrink":
                cache.shrink(_SHRINK_TO)


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


def _sentence(event: MemoryEvent) -> str:
    reading = event.reading
    where = f"{reading.used_bytes / 1e9:.1f} of {reading.limit_bytes / 1e9:.1f} GB of the {reading.of}"
    if event.action == "relax":
        return f"memory is plentiful again ({where})"
    return f"memory runs short ({where}): caches are dropped and texts encoded in smaller batches"


_PROCESS_WATCHER = MemoryWatcher()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_PROCESS_WATCHER.start_anew)
