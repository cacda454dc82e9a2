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


class Model:
    """The right behaviour, as a list of ``(key, value)`` from the oldest use to the newest."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.bounds = (max_entries, max_bytes)
        self.rows: list[tuple[str, int]] = []
        self.counts = {"hits": 0, "misses": 0, "evictions": 0}

    @property
    def num_bytes(self) -> int:
        return sum(value for _, value in self.rows)

    def get(self, key: str) -> int | None:
        for row in self.rows:
            if row[0] == key:
                self.rows.remove(row)
                self.rows.append(row)
                self.counts["hits"] += 1
                return row[1]
        self.counts["misses"] += 1
        return None

    def put(self, key: str, value: int) -> None:
        self.rows = [row for row in self.rows if row[0] != key]
        if value <= self.bounds[1]:
            self.rows.append((key, value))
        self.evict(*self.bounds)

    def evict(self, max_entries: int, max_bytes: int) -> None:
        while len(self.rows) > max_entries or self.num_bytes > max_bytes:
            del self.rows[0]
            self.counts["evictions"] += 1


keys = st.sampled_from("abcde")
gets = st.tuples(st.just("get"), keys)
puts = st.tuples(st.just("put"), keys, st.integers(0, 8))
others = st.one_of(
    st.tuples(st.just("shrink"), st.sampled_from([0.0, 0.25, 0.5, 1.0])),
    st.tuples(st.just("clear")),
)
# Long enough, and with enough of what matters, that entries are there to be read, replaced and pushed out.
operations = st.lists(st.one_of(gets, puts, puts, gets, puts, others), min_size=20, max_size=60)


def compare(cache_type: type[LRUCache[str, int]], steps: list[tuple[object, ...]]) -> None:
    """Do the same to the cache and to the model, and compare everything after each step."""
    cache = cache_type(4, 20, size_of)
    model = Model(4, 20)
    for name, *values in steps:
        if name == "get":
            assert cache.get(str(values[0])) == model.get(str(values[0]))
        elif name == "put":
            cache.put(str(values[0]), int(str(values[1])))
            model.put(str(values[0]), int(str(values[1])))
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
        assert set(cache._entries) == {key for key, _ in model.rows}


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(operations)
def test_any_interleaving_is_that_of_the_model(steps: list[tuple[object, ...]]) -> None:
    compare(LRUCache, steps)


class ForgetsToMove(LRUCache[str, int]):
    """The planted fault: reading an entry does not count as use, so the oldest written one is dropped."""

    def get(self, key: str) -> int | None:
        known = dict(self._entries.items())
        value = super().get(key)
        self._entries.clear()
        self._entries.update(known)
        return value


class ForgetsTheOldValue(LRUCache[str, int]):
    """The planted fault: room for a new value is made while the one that it replaces still counts."""

    def put(self, key: str, value: int) -> None:
        self._evict(3, 20 - value)
        super().put(key, value)


@pytest.mark.parametrize("broken", [ForgetsToMove, ForgetsTheOldValue])
def test_planted_fault_is_seen(broken: type[LRUCache[str, int]]) -> None:
    # Finding it once is enough; the smallest example is for people. Chance would miss it once in ten times.
    @settings(
        deadline=None,
        derandomize=True,
        max_examples=300,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
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
            # Shrinking may drop the older one of the two alone.
            if None not in (left, right) and left != right:
                torn.append((left, right))

    def trouble() -> None:
        for number in range(rounds):
            cache.shrink(0.9)
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
    assert found.num_bytes == sum(num_bytes for _, num_bytes in cache._entries.values()) <= 10_000


def test_a_copy_travels_with_bounds_and_without_entries_or_lock() -> None:
    cache: LRUCache[str, int] = LRUCache(4, 20, size_of)
    cache.put("a", 3)
    with cache._lock:  # a lock that is held cannot be copied, and need not be
        copy = pickle.loads(pickle.dumps(cache))
    assert copy.statistics() == CacheStatistics(0, 0, 0, 0, 0)
    copy.put("a", 21)
    assert copy.get("a") is None
    copy.put("a", 5)
    assert (copy.get("a"), cache.get("a")) == (5, 3)


def test_sizes_follow_the_real_ones() -> None:
    assert shallow_size("a" * 1000, b"") > 1000 + ENTRY_BYTES
    cache: LRUCache[str, bytes] = LRUCache(1000, 5_000)
    for number in range(100):
        cache.put(str(number), bytes(1000))
    assert 1 <= len(cache) <= 4


@pytest.mark.parametrize("value", [-1, 1.5, True, None, "4"])
def test_wrong_bounds(value: int) -> None:
    for option, bounds in (("max_entries", (value, 10)), ("max_bytes", (10, value))):
        with pytest.raises(ConfigError) as error:
            LRUCache(*bounds)
        assert (error.value.option, error.value.value) == (option, value)


def test_wrong_shares() -> None:
    with pytest.raises(ConfigError) as error:
        LRUCache[str, int](1, 1).shrink(1.5)
    assert (error.value.option, error.value.value) == ("share", 1.5)
