"""The name of a store: a hash of everything that decides its content."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import xxhash

from insight.data.store.format import FORMAT_VERSION


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
    """
    content = {
        "format_version": FORMAT_VERSION,
        "sources": list(source_hashes),
        "tokenizer": tokenizer_fingerprint,
        "encoding": dict(encoding),
    }
    return str(xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode("utf-8")))
