"""The cache behaves like a list kept by hand, whatever is done to it in whatever order, also by threads."""

from __future__ import annotations

import pickle
import threading

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from insight.data.tokenizers.segments import ENTRY_BYTES, CacheStatistics, LRUCache, shallow_size
from insight.runtime.errors import ConfigError


def size_of(key: str, value: int) -> int:
    return value


class Clock:
    """Stands still until it is told otherwise; picklable."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Model:
    """What the cache should do, as a list of ``[key, value, born]`` from the oldest use to the newest."""

    def __init__(self, max_entries: int, max_bytes: int, time_to_live: float) -> None:
        self.bounds = (max_entries, max_bytes)
        self.time_to_live = time_to_live
        self.rows: list[list[float | str]] = []
        self.counts = {"hits": 0, "misses": 0, "evictions": 0, "expirations": 0}

    @property
    def num_bytes(self) -> int:
        return sum(int(row[1]) for row in self.rows)

    def get(self, key: str, now: float) -> int | None:
        for row in self.rows:
            if row[0] == key:
                self.rows.remove(row)
                if now - float(row[2]) >= self.time_to_live:
                    self.counts["expirations"] += 1
                    break
                self.rows.append(row)
                self.counts["hits"] += 1
                return int(row[1])
        self.counts["misses"] += 1
        return None

    def put(self, key: str, value: int, now: float) -> None:
        self.rows = [row for row in self.rows if row[0] != key]
        if value <= self.bounds[1]:
            self.rows.append([key, value, now])
        self.evict(*self.bounds)

    def evict(self, max_entries: int, max_bytes: int) -> None:
        while len(self.rows) > max_entries or self.num_bytes > max_bytes:
            del self.rows[0]
            self.counts["evictions"] += 1


keys = st.sampled_from("abcde")
gets = st.tuples(st.just("get"), keys)
puts = st.tuples(st.just("put"), keys, st.integers(0, 8))
others = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([1, 2, 5])),
    st.tuples(st.just("resize"), st.integers(0, 6), st.integers(0, 30)),
    st.tuples(st.just("shrink"), st.sampled_from([0.0, 0.25, 0.5, 1.0])),
    st.tuples(st.just("clear")),
)
# Long enough, and with enough of what matters, that entries are there to be read, replaced and pushed out.
operations = st.lists(st.one_of(gets, puts, puts, gets, others), min_size=12, max_size=60)


def compare(cache_type: type[LRUCache[str, int]], steps: list[tuple[object, ...]]) -> None:
    """Do the same to the cache and to the model, and look at everything after each step."""
    clock = Clock()
    cache = cache_type(4, 20, 6.0, size_of, clock)
    model = Model(4, 20, 6.0)
    for name, *values in steps:
        if name == "get":
            assert cache.get(str(values[0])) == model.get(str(values[0]), clock.now)
        elif name == "put":
            cache.put(str(values[0]), int(str(values[1])))
            model.put(str(values[0]), int(str(values[1])), clock.now)
        elif name == "wait":
            clock.now += float(str(values[0]))
        elif name == "resize":
            model.bounds = (int(str(values[0])), int(str(values[1])))
            cache.resize(*model.bounds)
            model.evict(*model.bounds)
        elif name == "shrink":
            share = float(str(values[0]))
            cache.shrink(share)
            model.evict(model.bounds[0], int(model.num_bytes * share))
        else:
            cache.clear()
            model.rows = []
        assert cache.statistics() == CacheStatistics(
            **model.counts, num_entries=len(model.rows), num_bytes=model.num_bytes
        )
        assert list(cache._entries) == [row[0] for row in model.rows]
        assert len(cache) <= cache.max_entries
        assert model.num_bytes <= cache.max_bytes


@settings(deadline=None, max_examples=300)
@given(operations)
def test_any_interleaving_is_that_of_the_model(steps: list[tuple[object, ...]]) -> None:
    compare(LRUCache, steps)


class ForgetsToMove(LRUCache[str, int]):
    """The planted fault: what is read stays where it was, so it is the oldest written that goes."""

    def get(self, key: str) -> int | None:
        before = list(self._entries)
        value = super().get(key)
        if value is not None:
            for other in before:
                self._entries.move_to_end(other)
        return value


class ForgetsBytes(LRUCache[str, int]):
    """The planted fault: the bytes of what is replaced are never given back."""

    def put(self, key: str, value: int) -> None:
        lost = self._entries.get(key)
        super().put(key, value)
        self._num_bytes += lost[1] if lost else 0


@pytest.mark.parametrize("broken", [ForgetsToMove, ForgetsBytes])
def test_planted_fault_is_seen(broken: type[LRUCache[str, int]]) -> None:
    # Finding it is enough; the smallest example is for people.
    @settings(deadline=None, max_examples=300, database=None, phases=[Phase.generate])
    @given(operations)
    def search(steps: list[tuple[object, ...]]) -> None:
        compare(broken, steps)

    with pytest.raises(AssertionError):
        search()


def test_threads_never_see_a_half_finished_step() -> None:
    """Readers ask for two keys that are always written together; sizes and counters add up at the end."""
    cache: LRUCache[str, int] = LRUCache(64, 10_000)
    torn: list[object] = []
    rounds = 2_000

    def write(start: int) -> None:
        for number in range(rounds):
            value = start + number
            cache.put_many([("left", value), ("right", value), (f"{value % 50}", value)])

    def read() -> None:
        for _ in range(rounds):
            left, right = cache.get_many(["left", "right"])
            if left != right:
                torn.append((left, right))

    def trouble() -> None:
        for number in range(rounds):
            cache.resize(max_bytes=10_000 - number % 2)
            if number % 100 == 0:
                cache.clear()

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 10**6)]
    threads += [threading.Thread(target=read) for _ in range(2)] + [threading.Thread(target=trouble)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not torn
    found = cache.statistics()
    assert found.hits + found.misses == 2 * 2 * rounds
    assert found.num_entries == len(cache)
    assert found.num_bytes == sum(entry.num_bytes for entry in cache._entries.values()) <= 10_000


def test_a_copy_travels_with_settings_and_without_entries_or_lock() -> None:
    cache: LRUCache[str, int] = LRUCache(4, 20, 6.0, size_of, Clock())
    cache.put("a", 3)
    with cache._lock:  # a lock that is held cannot be copied, and need not be
        copy = pickle.loads(pickle.dumps(cache))
    assert (copy.max_entries, copy.max_bytes) == (4, 20)
    assert copy.statistics() == CacheStatistics(0, 0, 0, 0, 0, 0)
    copy.put("a", 21)
    assert copy.get("a") is None
    copy.put("a", 5)
    copy._clock.now += 6
    assert copy.get("a") is None
    assert cache.get("a") == 3


def test_no_thread_is_started() -> None:
    before = threading.active_count()
    cache: LRUCache[int, int] = LRUCache(10, 10_000, time_to_live=0.001)
    for number in range(100):
        cache.put(number, number)
        cache.get(number)
    assert threading.active_count() == before


def test_sizes_follow_the_real_ones() -> None:
    assert shallow_size("a" * 1000, b"") > 1000 + ENTRY_BYTES
    cache: LRUCache[str, bytes] = LRUCache(1000, 5_000)
    for number in range(100):
        cache.put(str(number), bytes(1000))
    assert 1 <= len(cache) <= 4


@pytest.mark.parametrize("value", [-1, 1.5, True, None, "4"])
def test_wrong_bounds(value: int) -> None:
    with pytest.raises(ConfigError, match="max_entries="):
        LRUCache(value, 10)
    with pytest.raises(ConfigError, match="max_bytes="):
        LRUCache(10, value)
    cache: LRUCache[str, int] = LRUCache(3, 10)
    if value is not None:
        with pytest.raises(ConfigError, match="max_bytes="):
            cache.resize(max_bytes=value)
    assert cache.max_bytes == 10


def test_wrong_times_and_shares() -> None:
    with pytest.raises(ConfigError, match="time_to_live=0"):
        LRUCache(1, 1, time_to_live=0)
    with pytest.raises(ConfigError, match=r"share=1\.5"):
        LRUCache[str, int](1, 1).shrink(1.5)
