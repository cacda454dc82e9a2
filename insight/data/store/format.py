"""The files of a token store, the manifest that describes them, and the key that names the store.

A store is a folder. ``00000.bin`` holds the ids of whole documents (little-endian uint16 if the vocabulary
fits, else uint32), each followed by the end-of-text id. ``00000.idx`` holds the start of each document and
the end of the last one (little-endian uint64). ``00001.bin`` continues ``00000.bin``. ``manifest.json`` is
written last.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from insight.runtime.errors import DataError

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
OFFSET_DTYPE: np.dtype[Any] = np.dtype("<u8")
_KEY = re.compile(r"[0-9A-Za-z_-]{1,64}")


def token_dtype(vocabulary_size: int) -> np.dtype[Any]:
    """The smallest type of the format that holds every id below ``vocabulary_size``, which is 1 to 2^32."""
    if not 1 <= vocabulary_size <= 1 << 32:
        problem = "a store holds ids of two or four bytes"
        raise DataError(problem, "use 1 to 2^32", option="vocabulary_size", value=vocabulary_size)
    return np.dtype("<u2") if vocabulary_size <= 1 << 16 else np.dtype("<u4")


@dataclass(frozen=True)
class Shard:
    """One ``.bin`` file and its ``.idx`` file.

    Attributes:
        name: File name without suffix.
        num_tokens: Ids in ``.bin``, end-of-text ids included.
        num_documents: Number of documents; ``.idx`` holds one number more.
        tokens_hash: xxh3 (128 bits) of ``.bin``.
        offsets_hash: xxh3 (128 bits) of ``.idx``.
    """

    name: str
    num_tokens: int
    num_documents: int
    tokens_hash: str
    offsets_hash: str


@dataclass(frozen=True)
class Manifest:
    """The contents of a store and where they came from.

    Attributes:
        vocabulary_size: Upper bound (excluded) of the ids.
        end_of_text_id: The id after each document.
        tokenizer_fingerprint: Fingerprint of the tokenizer that made the ids.
        num_bytes: Length of all documents in UTF-8 bytes.
        shards: The shards in order.
        origin: Where the text came from, plain JSON values, for reports.
    """

    vocabulary_size: int
    end_of_text_id: int
    tokenizer_fingerprint: str
    num_bytes: int
    shards: tuple[Shard, ...]
    origin: dict[str, Any]

    @property
    def num_tokens(self) -> int:
        """Number of ids in all shards."""
        return sum(shard.num_tokens for shard in self.shards)

    @property
    def num_documents(self) -> int:
        """Number of documents in all shards."""
        return sum(shard.num_documents for shard in self.shards)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the ids on disk."""
        return token_dtype(self.vocabulary_size)

    def to_json(self) -> str:
        """The content of ``manifest.json``, which ends with a hash of itself."""
        body = {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        return json.dumps({**body, "manifest_hash": json_hash(body)}, indent=1)


def faulty(path: Path, problem: str = "damaged") -> DataError:
    """The error for a file of a store."""
    return DataError(f"{path}: {problem}", "encode the text again")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a store; a ``DataError`` says that it is missing, damaged or of another version."""
    path = folder / MANIFEST_NAME
    try:
        body = json.loads(path.read_bytes())
        stored_hash, version = body.pop("manifest_hash"), body.pop("format_version")
        if version != FORMAT_VERSION:
            raise faulty(path, f"format version {version}, and this program reads {FORMAT_VERSION}")
        if stored_hash != json_hash({"format_version": version, **body}):
            raise faulty(path)
        shards = tuple(Shard(**shard) for shard in body.pop("shards"))
        manifest = Manifest(shards=shards, **body)
    except FileNotFoundError as error:
        raise faulty(path, "missing") from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise faulty(path) from error
    if not _is_sound(manifest):
        raise faulty(path)
    return manifest


def array_bytes(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> memoryview:
    """The bytes of ``array`` as ``dtype``, without a copy if it has that type already."""
    return np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8).data


def store_key(
    source_hashes: Sequence[str], tokenizer_fingerprint: str, encoding: Mapping[str, str | int | float]
) -> str:
    """Key of the store that holds these sources encoded by this tokenizer.

    File names do not count, so text that was moved or copied is found again.

    Args:
        source_hashes: Content hash of every source, in the order of the documents in the store.
        tokenizer_fingerprint: ``tokenizer.fingerprint()``.
        encoding: Everything else that decides the ids, such as the text field and the part of a split.
    """
    hashes = [] if isinstance(source_hashes, str) else list(source_hashes)
    if not hashes:
        remedy = "name at least one source"
        raise DataError("is not a list of hashes", remedy, option="source_hashes", value=source_hashes)
    for value in (*hashes, tokenizer_fingerprint):
        if not isinstance(value, str) or not value:
            raise DataError(f"{value!r} is no hash", "give ContentHashes.of and tokenizer.fingerprint()")
    content = {"sources": hashes, "tokenizer": tokenizer_fingerprint, "encoding": dict(encoding)}
    return json_hash({"format_version": FORMAT_VERSION, **content})


def checked_key(key: str) -> str:
    """Return ``key``; a ``DataError`` refuses an empty one, and one that could lead out of the cache."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise wrong_key("is not the key of a store", key)
    return key


def wrong_key(problem: str, key: object) -> DataError:
    """The error for a key of which a user has given the wrong one."""
    return DataError(problem, "see `insight cache list`", option="key", value=repr(key))


def _is_sound(manifest: Manifest) -> bool:
    """Whether a writer could have written these values; a downloaded store may hold anything.

    Names matter most: a name such as ``../other`` would make the reader open a file outside the store.
    """
    counts = [manifest.vocabulary_size, manifest.end_of_text_id, manifest.num_bytes]
    texts = [manifest.tokenizer_fingerprint]
    for index, shard in enumerate(manifest.shards):
        if shard.name != f"{index:05d}":
            return False
        counts += [shard.num_tokens, shard.num_documents]
        texts += [shard.tokens_hash, shard.offsets_hash]
    return (
        all(type(count) is int and count >= 0 for count in counts)
        and manifest.end_of_text_id < manifest.vocabulary_size
        and all(isinstance(text, str) for text in texts)
        and isinstance(manifest.origin, dict)
    )


def json_hash(content: object) -> str:
    """xxh3 hash (128 bits, hexadecimal) of plain JSON values, whatever the order of their keys."""
    return str(xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode("utf-8")))
