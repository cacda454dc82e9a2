"""Stores that a cache keeps: evicted by size, the longest unused first, never one in use or pinned."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from insight.data import ByteTokenizer, TokenStore
from insight.data.encoding.documents import encode_documents
from insight.data.sources.content_hashes import file_hash
from insight.data.store import StoreCache, StoreInventory, StoreWriter
from insight.data.store.format import Manifest, Shard, read_manifest
from insight.runtime.errors import DataError

TOKENIZER = ByteTokenizer()
SIZE = 20_000


def build(folder: Path) -> None:
    writer = StoreWriter(folder, TOKENIZER)
    encode_documents(["x" * (SIZE // 2)], writer)
    writer.close({"files": ["a.txt"], "division": ""})


def fill(root: Path, *keys: str) -> None:
    """Stores with these keys, the first one used longest ago."""
    for age, key in enumerate(reversed(keys), start=1):
        StoreCache(root).find_or_build(key, build, key)
        used(root, key, age)


def used(root: Path, key: str, days: int) -> None:
    moment = time.time() - 86_400 * days
    os.utime(root / "stores" / key / "manifest.json", (moment, moment))


def kept(root: Path) -> list[str]:
    return sorted(entry.key for entry in StoreInventory(root).entries())


HOLD = """
import sys
from insight.data import TokenStore
store = TokenStore(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that hold a store until the test ends."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def hold(store: Path, holder: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    holder.append(process)
    assert process.stdout
    assert process.stdout.readline() == "open\n"
    return process


def test_least_recently_used_go_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "one", "two", "three")
    StoreCache(tmp_path, int(2.5 * SIZE)).find_or_build("four", build, "four")
    assert kept(tmp_path) == ["four", "three"]
    said = capsys.readouterr().err
    assert said.count("which were used longest ago, from the cache") == 2
    assert not list((tmp_path / "stores").glob(".*"))


def test_using_a_store_makes_it_young(tmp_path: Path) -> None:
    fill(tmp_path, "one", "two", "three")
    assert StoreCache(tmp_path).find("one") is not None
    StoreCache(tmp_path, int(2.5 * SIZE)).find_or_build("four", build, "four")
    assert kept(tmp_path) == ["four", "one"]


def test_no_limit_keeps_everything(tmp_path: Path) -> None:
    fill(tmp_path, "one", "two", "three")
    StoreCache(tmp_path).find_or_build("four", build, "four")
    assert len(kept(tmp_path)) == 4


def test_store_in_use_or_pinned_stays(
    tmp_path: Path, holder: list[subprocess.Popen[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, "one", "two", "three", "four")
    hold(tmp_path / "stores" / "one", holder)
    used(tmp_path, "one", 9)
    own = TokenStore(tmp_path / "stores" / "two")
    used(tmp_path, "two", 8)
    StoreInventory(tmp_path).pin("three")
    used(tmp_path, "three", 7)
    StoreCache(tmp_path, 0).find_or_build("five", build, "five")
    assert kept(tmp_path) == ["five", "one", "three", "two"]
    said = capsys.readouterr().err
    assert said.count("are in use") == 2
    assert said.count("are pinned") == 1
    assert own.tokens(0, 3).tolist() == [120, 120, 120]
    own.verify()


def test_dead_process_holds_nothing(tmp_path: Path, holder: list[subprocess.Popen[str]]) -> None:
    fill(tmp_path, "one")
    inventory = StoreInventory(tmp_path)
    process = hold(tmp_path / "stores" / "one", holder)
    assert inventory.entry("one").is_in_use
    assert inventory.remove(inventory.entry("one")).kept_because == "in use"
    process.kill()
    process.communicate()
    assert not inventory.entry("one").is_in_use
    assert inventory.remove(inventory.entry("one")).kept_because == ""
    assert kept(tmp_path) == []


def test_store_is_free_when_its_last_object_is_gone(tmp_path: Path) -> None:
    fill(tmp_path, "one")
    inventory = StoreInventory(tmp_path)
    first = TokenStore(tmp_path / "stores" / "one")
    second = pickle.loads(pickle.dumps(first))
    assert second.num_tokens
    del first
    assert inventory.entry("one").is_in_use
    del second
    assert not inventory.entry("one").is_in_use


def test_planted_fault_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without leases a store is taken from under the process that reads it."""
    fill(tmp_path, "one")
    monkeypatch.setattr("insight.data.store.reader.take_lease", lambda *_: None)
    store = TokenStore(tmp_path / "stores" / "one")
    inventory = StoreInventory(tmp_path)
    assert inventory.remove(inventory.entry("one")).kept_because == ""
    with pytest.raises(DataError, match="missing"):
        pickle.loads(pickle.dumps(store))


def test_evicted_store_is_built_again(tmp_path: Path) -> None:
    fill(tmp_path, "one")
    inventory = StoreInventory(tmp_path)
    inventory.remove(inventory.entry("one"))
    StoreCache(tmp_path).find_or_build("one", build, "one").verify()


def test_pins_survive_damage(tmp_path: Path) -> None:
    fill(tmp_path, "one")
    inventory = StoreInventory(tmp_path)
    inventory.pin("one")
    (tmp_path / "stores" / "one" / "00000.bin").write_bytes(b"")
    StoreCache(tmp_path).find_or_build("one", build, "one")
    assert inventory.entry("one").is_pinned
    assert len(inventory.quarantined()) == 1
    inventory.unpin("one")
    assert not inventory.entry("one").is_pinned
    with pytest.raises(DataError) as error:
        inventory.unpin("one")
    assert (error.value.option, error.value.value) == ("key", "'one'")


def test_entry_says_what_there_is(tmp_path: Path) -> None:
    fill(tmp_path, "one", "two")
    newest, oldest = StoreInventory(tmp_path).entries()
    assert (newest.key, oldest.key) == ("two", "one")
    assert oldest.num_bytes == sum(path.stat().st_size for path in oldest.path.iterdir())
    assert 1.9 * 86_400 < time.time() - oldest.last_used < 2.1 * 86_400
    assert time.time() - oldest.made < 60
    assert oldest.manifest is not None
    assert oldest.manifest.origin["files"] == ["a.txt"]
    (tmp_path / "stores" / "one" / "manifest.json").write_text("{")
    damaged = StoreInventory(tmp_path).entry("one")
    assert damaged.manifest is None
    assert "damaged" in damaged.damage
    with pytest.raises(DataError) as error:
        StoreInventory(tmp_path).entry("three")
    assert (error.value.option, error.value.value) == ("key", "'three'")
    assert StoreInventory(tmp_path / "nowhere").entries() == []


def test_verify_finds_what_opening_does_not(tmp_path: Path) -> None:
    fill(tmp_path, "one", "two")
    path = tmp_path / "stores" / "one" / "00000.bin"
    path.write_bytes(b"y" + path.read_bytes()[1:])
    inventory = StoreInventory(tmp_path)
    problems = {entry.key: inventory.verify(entry) for entry in inventory.entries()}
    assert problems["two"] == ""
    assert "00000.bin: damaged" in problems["one"]


def test_looking_is_no_use(tmp_path: Path) -> None:
    fill(tmp_path, "one")
    inventory = StoreInventory(tmp_path)
    before = inventory.entry("one").last_used
    inventory.verify(inventory.entry("one"))
    assert inventory.entry("one").last_used == before


@pytest.mark.parametrize("key", ["", "../one", "/etc", ".", "..", "a/b", ".one.tmp", "x" * 65, None, 3])
def test_keys_lead_nowhere_else(tmp_path: Path, key: str) -> None:
    for act in (
        StoreCache(tmp_path).find,
        StoreInventory(tmp_path).entry,
        StoreInventory(tmp_path).pin,
        StoreInventory(tmp_path).unpin,
        lambda key: StoreCache(tmp_path).find_or_build(key, build, "x"),
    ):
        with pytest.raises(DataError) as caught:
            act(key)
        assert caught.value.option == "key"
    assert list(tmp_path.iterdir()) == []


def test_no_negative_limit(tmp_path: Path) -> None:
    for limit in (StoreCache, lambda root, most: StoreInventory(root).shrink(most)):
        with pytest.raises(DataError) as caught:
            limit(tmp_path, -1)
        assert (caught.value.option, caught.value.value) == ("max_bytes", -1)


def test_an_edit_with_a_restored_time_stamp_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size, time stamp and inode are those of the store that was verified; the time of the change is not."""
    monkeypatch.setattr("insight.data.store.cache._ALWAYS_VERIFIED_BYTES", 0)
    fill(tmp_path, "one")
    cache = StoreCache(tmp_path)
    assert cache.find("one") is not None
    path = tmp_path / "stores" / "one" / "00000.bin"
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"y")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match="damaged"):
        cache.find("one")


@pytest.mark.slow
def test_finding_and_opening_a_gigabyte_takes_no_time(tmp_path: Path) -> None:
    """Verified once, a store is known by size, time and inode of its files; here they are mostly holes."""

    def build_large(folder: Path) -> None:
        build(folder)
        (folder / "00000.bin").unlink()
        with open(folder / "00000.bin", "wb") as file:
            file.truncate(1 << 30)
        manifest = read_manifest(folder)
        (shard,) = manifest.shards
        shard = Shard(shard.name, 1 << 29, 1, file_hash(folder / "00000.bin"), shard.offsets_hash)
        values = {**vars(manifest), "shards": (shard,)}
        (folder / "manifest.json").write_text(Manifest(**values).to_json())

    StoreCache(tmp_path).find_or_build("large", build_large, "large")
    started = time.perf_counter()
    store = StoreCache(tmp_path).find("large")
    assert time.perf_counter() - started < 0.1
    assert store is not None
    assert store.num_tokens == 1 << 29
