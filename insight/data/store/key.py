"""The name of a store: a hash of everything that decides its content."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import xxhash

from insight.data.store.format import FORMAT_VERSION
from insight.runtime.errors import DataError

_KEY = re.compile(r"[0-9A-Za-z_-]{1,64}")


def store_key(
    source_hashes: Sequence[str], tokenizer_fingerprint: str, encoding: Mapping[str, str | int | float]
) -> str:
    """Key of the store that these sources give with this tokenizer.

    Names and places of the files play no part: moved or copied text is found again.

    Args:
        source_hashes: Content hash of every source, in the order of encoding (which is the order of the
            documents in the store, so it belongs to the content).
        tokenizer_fingerprint: ``tokenizer.fingerprint()``.
        encoding: What else decides the ids: the text field, which part of a split.

    Raises:
        DataError: There is no source, or something else than text stands for one or for the tokenizer.
    """
    hashes = [] if isinstance(source_hashes, str) else list(source_hashes)
    if not hashes:
        raise DataError(f"source_hashes={source_hashes!r}: not a list of hashes", "name at least one source")
    for value in (*hashes, tokenizer_fingerprint):
        if not isinstance(value, str) or not value:
            raise DataError(f"{value!r} is no hash", "give ContentHashes.of and tokenizer.fingerprint()")
    content = {
        "format_version": FORMAT_VERSION,
        "sources": hashes,
        "tokenizer": tokenizer_fingerprint,
        "encoding": dict(encoding),
    }
    return str(xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode("utf-8")))


def checked_key(key: str) -> str:
    """``key``, if it can name a folder and nothing else.

    Raises:
        DataError: It is empty, or could lead out of the cache.
    """
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise DataError(f"key={key!r}: not the key of a store", "take one from `insight cache list`")
    return key
