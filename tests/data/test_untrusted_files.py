"""Stores, tokenizers and token files that were fetched: none of them runs code or reads other files."""

from __future__ import annotations

import ast
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash

import insight.data
from insight.data import BPETokenizerConfig, ByteTokenizer, TokenStore, expand_sources, load_tokenizer
from insight.data.encoding.documents import encode_documents
from insight.data.sources.token_files import read_token_batches
from insight.data.store import StoreCache, StoreWriter
from insight.runtime.errors import DataError, TokenizerError

TOKENIZER = ByteTokenizer()


class Payload:
    """Makes a file when somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, (str(self.path),))


@pytest.fixture
def payload(tmp_path: Path) -> bytes:
    """A pickle; the test fails if it was executed (or would not be when it is)."""
    trace = tmp_path / "executed"
    data = pickle.dumps(Payload(trace))
    pickle.loads(data)
    assert trace.is_dir()
    trace.rmdir()
    return data


def write_store(folder: Path) -> Path:
    folder.mkdir()
    writer = StoreWriter(folder, TOKENIZER)
    encode_documents(["some text"] * 20, writer)
    writer.close({})
    return folder


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and make its hash right again, as somebody who knows the format can."""
    path = folder / "manifest.json"
    body = json.loads(path.read_text())
    del body["manifest_hash"]
    change(body)
    body["manifest_hash"] = xxhash.xxh3_128_hexdigest(json.dumps(body, sort_keys=True).encode())
    path.write_text(json.dumps(body))


def name_shard(name: object) -> Callable[[dict[str, Any]], object]:
    return lambda body: body["shards"][0].update(name=name)


def set_hash(field: str, value: str) -> Callable[[dict[str, Any]], object]:
    return lambda body: body["shards"][0].update({field: value})


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "shard above": name_shard("../secret"),
    "shard elsewhere": name_shard("/etc/passwd"),
    "shard with a NUL": name_shard("00000\0"),
    "shard of another number": name_shard("00001"),
    "shard without a name": name_shard(None),
    "negative count": lambda body: body["shards"][0].update(num_tokens=-1),
    "count that is text": lambda body: body["shards"][0].update(num_tokens="10"),
    "count that is true": lambda body: body.update(num_bytes=True),
    "shards that are none": lambda body: body.update(shards=3),
    "shard that is none": lambda body: body.update(shards=[3]),
    "field too many": lambda body: body.update(path="../secret"),
    "field of a shard too many": lambda body: body["shards"][0].update(path="../secret"),
    "field too few": lambda body: body.pop("vocabulary_size"),
    "end of text outside": lambda body: body.update(end_of_text_id=257),
    "hash that is none": lambda body: body["shards"][0].update(tokens_hash=3),
    "origin that is none": lambda body: body.update(origin="../secret"),
}


@pytest.mark.parametrize("change", FORGERIES.values(), ids=FORGERIES.keys())
def test_forged_manifest_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    folder = write_store(tmp_path / "store")
    (tmp_path / "secret.bin").write_bytes((folder / "00000.bin").read_bytes())
    (tmp_path / "secret.idx").write_bytes((folder / "00000.idx").read_bytes())
    forge(folder, lambda body: None)
    TokenStore(folder).verify()  # forging as such works
    forge(folder, change)
    with pytest.raises(DataError, match=r"manifest.json: damaged"):
        TokenStore(folder)


def test_store_of_links_is_refused(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "store")
    secret = tmp_path / "secret"
    (folder / "00000.bin").rename(secret)
    os.symlink(secret, folder / "00000.bin")
    with pytest.raises(DataError, match="is a link"):
        TokenStore(folder)


def test_store_with_impossible_ids_or_offsets_is_refused(tmp_path: Path) -> None:
    """The hashes are right, but such ids would read outside of an embedding."""
    folder = write_store(tmp_path / "store")
    for suffix, field, data in (
        ("bin", "tokens_hash", b"\xff\xff" * 200),
        ("idx", "offsets_hash", b"\xff" * 8 * 21),
        ("idx", "offsets_hash", (5).to_bytes(8, "little") * 20 + bytes(8)),
    ):
        path = folder / f"00000.{suffix}"
        before = path.read_bytes()
        assert len(data) == len(before)
        path.write_bytes(data)
        digest = xxhash.xxh3_128_hexdigest(data)
        original = xxhash.xxh3_128_hexdigest(before)
        forge(folder, set_hash(field, digest))
        with pytest.raises(DataError, match=f"00000.{suffix}: damaged"):
            TokenStore(folder).verify()
        path.write_bytes(before)
        forge(folder, set_hash(field, original))
    TokenStore(folder).verify()


def test_pickles_are_not_executed(tmp_path: Path, payload: bytes) -> None:
    (tmp_path / "stores").mkdir()
    folder = write_store(tmp_path / "stores" / "key")
    for name in ("manifest.json", "00000.bin", "00000.idx"):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(payload.ljust(len(before), b"\0")[: len(before)])
        with pytest.raises(DataError):
            StoreCache(tmp_path).find("key")
        (folder / name).write_bytes(before)
    assert StoreCache(tmp_path).find("key") is not None

    (tmp_path / "tokenizer.json").write_bytes(payload)
    with pytest.raises(TokenizerError):
        load_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(TokenizerError):
        load_tokenizer(tmp_path)

    (tmp_path / "a.bin").write_bytes(payload + b"\0" * (len(payload) % 2))
    (tmp_path / "meta.pkl").write_bytes(payload)  # which nanoGPT puts beside its ids
    (source,) = expand_sources(str(tmp_path / "a.bin"))
    with pytest.raises(DataError):
        list(read_token_batches(source, TOKENIZER.vocabulary_size, TOKENIZER.end_of_text_id))
    assert not (tmp_path / "executed").exists()


def test_folder_of_a_tokenizer_brings_no_code(tmp_path: Path, payload: bytes) -> None:
    """Hugging Face's loader would import the class that such a configuration names."""
    BPETokenizerConfig(260).build(["some text"] * 3).save(tmp_path)
    for name in ("tokenizer.pkl", "vocab.pkl", "tokenizer.model"):
        (tmp_path / name).write_bytes(payload)
    (tmp_path / "tokenization_own.py").write_text(f"import os; os.mkdir({str(tmp_path / 'executed')!r})")
    config = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_tokenizer(tmp_path).encode("some text")
    assert not (tmp_path / "executed").exists()


DANGEROUS_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
DANGEROUS_CALLS = {"eval", "exec", "compile", "__import__"}


def dangers_in(code: str) -> list[str]:
    """What in this code could execute a file."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in DANGEROUS_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in DANGEROUS_MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found += [node.func.id] * (node.func.id in DANGEROUS_CALLS)
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found.append("allow_pickle")
    return found


def test_nothing_here_unpickles() -> None:
    folder = Path(insight.data.__file__).parent
    # Executors talk with workers that they started through pipes, and unpickle no file.
    files = [file for file in sorted(folder.rglob("*.py")) if file.name not in ("executors.py", "worker.py")]
    assert len(files) > 30
    found = {file.name: dangers for file in files if (dangers := dangers_in(file.read_text()))}
    assert found == {}


@pytest.mark.parametrize(
    "code", ["import pickle", "from pickle import loads", "eval('1')", "numpy.load(path, allow_pickle=True)"]
)
def test_planted_danger_is_seen(code: str) -> None:
    assert dangers_in(code)
