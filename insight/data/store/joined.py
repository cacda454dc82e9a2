"""Several stores read as one, for whoever asks what a mixture was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from insight.data.store.reader import TokenStore
from insight.data.store.stream import MappedStream
from insight.runtime.errors import DataError


class JoinedStore(TokenStore):
    """The documents of several stores, one store after the other.

    Args:
        stores: At least one, all of one tokenizer.

    Raises:
        DataError: Their tokenizers differ.
    """

    def __init__(self, stores: Sequence[TokenStore]) -> None:
        self._stores = tuple(stores)
        first = self._stores[0]
        if len({store.manifest.tokenizer_fingerprint for store in self._stores}) > 1:
            raise DataError(f"{first.path} and others: encoded by several tokenizers", "encode them by one")
        self.path = first.path
        self._lease = None  # the stores hold theirs
        self.manifest = dataclasses.replace(
            first.manifest,
            num_bytes=sum(store.num_bytes for store in self._stores),
            shards=tuple(shard for store in self._stores for shard in store.manifest.shards),
            origin={
                "files": [file for store in self._stores for file in store.manifest.origin.get("files", ())],
                "division": "",
            },
        )
        self._shards = [shard for store in self._stores for shard in store._shards]
        self._shard_offsets = [offsets for store in self._stores for offsets in store._shard_offsets]
        self._stream = MappedStream(self._shards)

    def __reduce__(self) -> tuple[type[TokenStore], tuple[tuple[TokenStore, ...]]]:  # type: ignore[override]
        return (JoinedStore, (self._stores,))

    def verify(self) -> None:
        for store in self._stores:
            store.verify()
