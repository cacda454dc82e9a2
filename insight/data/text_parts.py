"""Documents that are read in parts, so that a long one never has to be in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from insight.data.tokenizers.segmented import cut_stream
from insight.runtime.errors import DataError

_TRAINING_CHARACTERS = 1 << 20


class TextPart(NamedTuple):
    """A stretch of a document.

    Attributes:
        text: Its characters.
        is_last: Whether the document ends with it; else the next part goes on.
    """

    text: str
    is_last: bool


def as_parts(documents: Iterable[str]) -> Iterator[TextPart]:
    """Whole documents, each as one part.

    Raises:
        DataError: ``documents`` is one ``str``, which would be read letter by letter.
    """
    if isinstance(documents, (str, bytes)):
        raise DataError("documents is one text, not a collection of texts", "give [text]")
    return (TextPart(document, True) for document in documents)


def rest_of_document(part: TextPart, parts: Iterator[TextPart]) -> Iterator[str]:
    """The text of a document from ``part``, which has been taken from ``parts``, to its end."""
    yield part.text
    if not part.is_last:
        for following in parts:
            yield following.text
            if following.is_last:
                return


def as_documents(parts: Iterable[TextPart]) -> Iterator[str]:
    """Whole documents; each is in memory at once."""
    stream = iter(parts)
    for part in stream:
        yield part.text if part.is_last else "".join(rest_of_document(part, stream))


def without_empty(parts: Iterable[TextPart], goes_on: bool = False) -> Iterator[TextPart]:
    """The same documents without empty ones, and without empty parts inside one where that is possible.

    Args:
        parts: Documents in parts.
        goes_on: Whether the first of them has begun, with some text, before.
    """
    for part in parts:
        if part.text or (part.is_last and goes_on):
            yield part
            goes_on = not part.is_last
        elif part.is_last:
            goes_on = False


def training_texts(parts: Iterable[TextPart]) -> Iterator[str]:
    """Texts to train any tokenizer on: long documents in pieces, cut only between words.

    Raises:
        TokenizerError: A document has millions of characters without a place to cut.
    """
    stream = iter(parts)
    for part in stream:
        if part.is_last:
            yield part.text
        else:
            yield from cut_stream(rest_of_document(part, stream), _TRAINING_CHARACTERS)
