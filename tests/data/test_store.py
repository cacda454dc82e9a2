"""The token store gives back what was written, over any number of shards, and finds every damage."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data.encoding.documents import encode_documents
from insight.data.store import StoreCache, StoreWriter, TokenStore, store_key
from insight.data.store.format import token_dtype
from insight.data.tokenizers import BPETokenizerConfig, ByteTokenizer, EncodedBatch
from insight.runtime.errors import DataError, OutputError
from insight.runtime.memory_watcher import MemoryReading, MemoryWatcher

TOKENIZER = ByteTokenizer()
BPE = BPETokenizerConfig(262, min_frequency=1).build(["ab ab\nab éa éa bb ba "])
DOCUMENTS = ["hello", "wörld", "a" * 10, "b", "x" * 30]
END = TOKENIZER.end_of_text_id


def write(folder: Path, documents: list[str], shard_tokens: int = 1 << 28) -> TokenStore:
    folder.mkdir(exist_ok=True)
    writer = StoreWriter(folder, TOKENIZER, shard_tokens)
    encode_documents(documents, writer)
    writer.close({"files": ["a"]})
    return TokenStore(folder)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.lists(st.text("abé", max_size=9), min_size=1, max_size=12), st.integers(1, 40), st.data())
def test_store_is_the_documents_each_with_its_end(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], shard_tokens: int, data: st.DataObject
) -> None:
    store = write(tmp_path_factory.mktemp("store"), documents, shard_tokens)
    expected = [index for text in documents for index in [*TOKENIZER.encode(text), END]]
    assert store.tokens(0, store.num_tokens).tolist() == expected
    assert store.num_tokens == len(expected)
    assert store.num_documents == len(documents)
    assert store.num_bytes == sum(len(text.encode()) for text in documents)
    assert [TOKENIZER.decode(store.document(index)) for index in range(len(documents))] == documents
    store.verify()
    start = data.draw(st.integers(0, len(expected)))
    stop = data.draw(st.integers(start, len(expected)))
    assert store.tokens(start, stop).tolist() == expected[start:stop]
    length = data.draw(st.integers(1, len(expected)))
    starts = data.draw(st.lists(st.integers(0, len(expected) - length), max_size=5))
    windows = store.windows(np.array(starts, dtype=np.int64), length)
    assert windows.dtype == np.int64
    assert windows.shape == (len(starts), length)
    assert windows.tolist() == [expected[first : first + length] for first in starts]


def test_long_batches_are_cut_into_shards_at_documents(tmp_path: Path) -> None:
    store = write(tmp_path / "s", [str(number) * 7 for number in range(100)], shard_tokens=50)
    assert [shard.num_documents for shard in store.manifest.shards[:2]] == [7, 5]
    assert (tmp_path / "s" / "00001.bin").stat().st_size == store.manifest.shards[1].num_tokens * 2


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.text("ab é\n", max_size=40), min_size=1, max_size=6),
    st.integers(1, 12),
    st.integers(1, 30),
    st.sampled_from(["byte", "bpe"]),
)
def test_how_the_work_is_cut_changes_no_byte(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[str],
    batch_bytes: int,
    shard_tokens: int,
    kind: str,
) -> None:
    """Long documents in parts, short ones together, all at once: the same files."""
    tokenizer = {"byte": TOKENIZER, "bpe": BPE}[kind]
    stores = []
    for size in (1 << 22, batch_bytes):
        writer = StoreWriter(tmp_path_factory.mktemp("store"), tokenizer, shard_tokens)
        encode_documents(documents, writer, batch_bytes=size)
        stores.append(writer.close({}))
    assert stores[0].to_json() == stores[1].to_json()


def test_long_document_is_encoded_in_parts_and_smaller_ones_while_memory_is_short(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Watched(ByteTokenizer):
        def _encode(self, texts: Sequence[str]) -> EncodedBatch:
            sizes.append(sum(map(len, texts)))
            return super()._encode(texts)

        def encode_pieces(self, pieces: Sequence[str]) -> Any:
            sizes.append(sum(map(len, pieces)))
            return super().encode_pieces(pieces)

    reading = MemoryReading(0, 100, "machine")
    watcher = MemoryWatcher(read=lambda: reading)
    for used, largest in ((0, 400), (90, 100), (0, 400)):
        reading = MemoryReading(used, 100, "machine")
        watcher.look()
        sizes.clear()
        writer = StoreWriter(tmp_path, Watched())
        documents = ["x" * 1000, *["y" * 30] * 50, "z" * 1000]
        encode_documents(documents, writer, batch_bytes=400, watcher=watcher)
        writer.close({})
        assert 0.7 * largest <= max(sizes) <= largest
        assert sum(sizes) == 3500


def test_ids_take_two_bytes_while_they_fit() -> None:
    assert token_dtype(1 << 16).itemsize == 2
    assert token_dtype((1 << 16) + 1).itemsize == 4


def test_out_of_range(tmp_path: Path) -> None:
    store = write(tmp_path / "s", DOCUMENTS)
    size = store.num_tokens
    for start, stop in ((-1, 2), (0, size + 1), (3, 2)):
        with pytest.raises(DataError, match=f"the store has {size}"):
            store.tokens(start, stop)
    for first in (-1, size - 3):
        with pytest.raises(DataError, match="beyond the end"):
            store.windows(np.array([first]), 4)
    for index in (-1, len(DOCUMENTS)):
        with pytest.raises(DataError, match="the store has 5"):
            store.document(index)


def test_store_travels_by_path(tmp_path: Path) -> None:
    store = write(tmp_path / "s", DOCUMENTS * 1000)
    data = pickle.dumps(store)
    assert len(data) < 1000
    assert pickle.loads(data).num_tokens == store.num_tokens


def flip(name: str, position: int = -1) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[position] ^= 1
        (folder / name).write_bytes(data)

    return damage


def truncate(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-2])


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def edit_manifest(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


FOUND_AT_OPENING = {
    "truncated ids": truncate("00000.bin"),
    "truncated offsets": truncate("00000.idx"),
    "no ids": remove("00000.bin"),
    "no offsets": remove("00000.idx"),
    "no manifest": remove("manifest.json"),
    "truncated manifest": truncate("manifest.json"),
    "a bit of the manifest": edit_manifest(num_bytes=50),
    "other version": edit_manifest(format_version=2),
    "manifest of another kind": edit_manifest(shards=3),
}
FOUND_BY_HASH = {"a bit of the ids": flip("00000.bin"), "a bit of the offsets": flip("00000.idx", 9)}


@pytest.mark.parametrize("damage", FOUND_AT_OPENING.values(), ids=FOUND_AT_OPENING.keys())
def test_damage_is_found_at_opening(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(write(tmp_path / "s", DOCUMENTS).path)
    with pytest.raises(DataError, match="encode the text again"):
        TokenStore(tmp_path / "s")


@pytest.mark.parametrize("damage", FOUND_BY_HASH.values(), ids=FOUND_BY_HASH.keys())
def test_damage_is_found_by_verify(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(write(tmp_path / "s", DOCUMENTS).path)
    store = TokenStore(tmp_path / "s")  # the sizes are right
    with pytest.raises(DataError, match="damaged"):
        store.verify()


class Builder:
    """Counts how often the cache asked for the store."""

    def __init__(self) -> None:
        self.builds = 0

    def __call__(self, folder: Path) -> None:
        self.builds += 1
        write(folder, DOCUMENTS)


@pytest.mark.parametrize(
    "damage", [*FOUND_AT_OPENING.values(), *FOUND_BY_HASH.values()], ids=[*FOUND_AT_OPENING, *FOUND_BY_HASH]
)
def test_damaged_store_is_set_aside_and_rebuilt(
    tmp_path: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    build = Builder()
    StoreCache(tmp_path).find_or_build("key", build, "a.txt")
    damage(tmp_path / "stores" / "key")
    store = StoreCache(tmp_path).find_or_build("key", build, "a.txt")
    assert build.builds == 2
    assert [TOKENIZER.decode(store.document(index)) for index in range(5)] == DOCUMENTS
    assert len(list((tmp_path / "quarantine").iterdir())) == 1
    assert "a.txt are damaged" in capsys.readouterr().err
    StoreCache(tmp_path).find_or_build("key", build, "a.txt")
    assert build.builds == 2


def test_large_store_of_others_is_verified_at_first_use_and_any_after_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insight.data.store.cache._ALWAYS_VERIFIED_BYTES", 0)
    verified: list[Path] = []
    verify = TokenStore.verify
    monkeypatch.setattr(TokenStore, "verify", lambda self: (verified.append(self.path), verify(self)))
    build = Builder()
    for _ in range(3):
        StoreCache(tmp_path).find_or_build("key", build, "a.txt")
    assert not verified  # its bytes were hashed as they were written
    shutil.rmtree(tmp_path / "verified")  # as of a store that was copied here
    for _ in range(3):
        StoreCache(tmp_path).find_or_build("key", build, "a.txt")
    assert len(verified) == 1
    flip("00000.bin")(tmp_path / "stores" / "key")
    StoreCache(tmp_path).find_or_build("key", build, "a.txt")
    assert build.builds == 2


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        write(folder, DOCUMENTS)
        raise DataError("b.txt: not UTF-8")

    with pytest.raises(DataError, match="not UTF-8"):
        StoreCache(tmp_path).find_or_build("key", build, "a.txt")
    assert [path.name for path in (tmp_path / "stores").iterdir()] == ["key.lock"]
    assert StoreCache(tmp_path).find("key") is None


def test_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        write(folder, DOCUMENTS)
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"cache_dir=.*the disk is full.*INSIGHT_CACHE_DIR"):
        StoreCache(tmp_path).find_or_build("key", build, "a.txt")
    assert [path.name for path in (tmp_path / "stores").iterdir()] == ["key.lock"]


def test_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cache_dir="):
        StoreCache(tmp_path / "file").find_or_build("key", Builder(), "a.txt")


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    stale = tmp_path / "stores" / ".key.abc.tmp"
    stale.mkdir(parents=True)
    other = tmp_path / "stores" / ".other.abc.tmp"
    other.mkdir()
    StoreCache(tmp_path).find_or_build("key", Builder(), "a.txt")
    assert not stale.exists()
    assert other.exists()


def test_key_names_everything_that_decides_the_content() -> None:
    keys = {
        store_key(["a", "b"], "t", {"text_field": "text"}),
        store_key(["b", "a"], "t", {"text_field": "text"}),
        store_key(["a"], "t", {"text_field": "text"}),
        store_key(["a", "b"], "u", {"text_field": "text"}),
        store_key(["a", "b"], "t", {"text_field": "body"}),
        store_key(["a", "b"], "t", {"text_field": "text", "part": "train"}),
    }
    assert len(keys) == 6


def test_keys_and_bytes_of_earlier_versions_stay(tmp_path: Path) -> None:
    """Text that an earlier version has encoded is found again, and read."""
    assert store_key(["a", "b"], "t", {"text_field": "text"}) == "eb1681dddd829edbef4b3254b8ec5a24"
    writer = StoreWriter(tmp_path, TOKENIZER, 16)
    encode_documents(DOCUMENTS, writer)
    writer.close({"files": ["a.txt"]})
    hashes = {path.name: xxhash.xxh3_64_hexdigest(path.read_bytes()) for path in tmp_path.iterdir()}
    assert hashes == {
        "00000.bin": "70a7bbca65a09417",
        "00000.idx": "12b55e17ab9159a4",
        "00001.bin": "679bd6d97e92a3c4",
        "00001.idx": "3d43c6f22c992f45",
        "manifest.json": "192ce0660745b044",
    }
