"""Documents from a Python program: a list, a function that yields them, or a `datasets` object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import xxhash

from insight.data.sources.decoding import Reading, TextRepairs, checked_text
from insight.data.sources.formats import TextPart, TextSource, choose_field
from insight.runtime.errors import DataError


class Texts(TextSource):
    """Documents to train or evaluate on, used in place of file names.

    They are read several times (to hash, train a tokenizer, divide and encode), so each pass must give the
    same documents in the same order, which is checked. The library `datasets` is not imported: its objects
    are collections of rows.

    Args:
        documents: A collection that can be iterated several times (list, ``datasets.Dataset``,
            ``datasets.IterableDataset``), or a function that returns an iterator. Each document is a text, or
            a row (a mapping) that holds it in ``text_field``.
        name: Name of the documents in messages and reports.

    Raises:
        DataError: ``documents`` is a single text, a one-pass iterator, or several splits.
    """

    def __init__(
        self, documents: Iterable[Any] | Callable[[], Iterable[Any]], name: str = "the given texts"
    ) -> None:
        remedy = "give a list, or a function that returns the documents anew"
        if isinstance(documents, (str, bytes)):
            raise DataError("documents is one text, not a collection of texts", "give [text]")
        if isinstance(documents, Mapping):
            splits = ", ".join(map(str, documents))
            raise DataError(f"documents is a mapping ({splits})", "give one of them: dataset['train']")
        if isinstance(documents, Iterator):
            raise DataError("documents is an iterator, which is used up after one pass", remedy)
        if not callable(documents) and not isinstance(documents, Iterable):
            raise DataError(f"documents is {type(documents).__name__}, not a collection of texts", remedy)
        self._documents = documents
        self.name = name

    def records(self, reading: Reading, repairs: TextRepairs) -> Iterator[TextPart]:
        documents = self._documents() if callable(self._documents) else self._documents
        for number, document in enumerate(documents):
            where = f"{self.name}: document {number}"
            if isinstance(document, Mapping):
                field = reading.text_field
                if field not in document:
                    remedy = choose_field(field, [str(name) for name in document])
                    raise DataError(f"{where} has no field {field!r}", remedy)
                where = f"{where}, field {field!r}"
                document = document[field]
            yield TextPart(checked_text(document, where, reading, repairs), True)


def text_hash(source: TextSource, reading: Reading) -> str:
    """A hash of all documents of a source in order (xxh3, 128 bits, hexadecimal)."""
    hasher = xxhash.xxh3_128()
    for text in source.documents(reading):
        data = text.encode("utf-8")
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)
    return str(hasher.hexdigest())
