"""Measure how well a tokenizer fits a text: compression, use of its tokens, and lost text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insight.data.tokenizers.base import BaseTokenizer, EncodedBatch, utf8_length
from insight.runtime.errors import DataError
from insight.runtime.statistics import Interval, paired_ratio_bootstrap

STRETCH_BYTES = 4096
"""Tokenizers are compared over stretches of this length; a token belongs to the stretch in which it ends."""
# Approximate number of characters of the documents that are encoded at once.
_BATCH_CHARACTERS = 1 << 20
# At least this much text of each file is decoded again and compared.
_CHECKED_CHARACTERS = 1 << 20
_SHOWN_CHARACTERS = 60
_NUM_EXAMPLES = 10

NamedText = tuple[str, Callable[[], Iterable[str]]]
"""The name of a text, and a function that returns its documents and may be called several times."""


@dataclass
class TextQuality:
    """How a tokenizer encodes one text.

    Attributes:
        num_words: Number of runs of characters without white space.
        num_tokens: Number of tokens without end-of-text tokens.
        num_known_bytes: Number of bytes that the tokens stand for.
        num_fragments: Number of tokens that are one byte of a multi-byte character.
        num_checked: Number of documents, or parts of long documents, that were decoded again.
        num_lost: Number of those that decoding changed.
        first_loss: The first difference between a text and its decoded form.
    """

    name: str
    num_documents: int = 0
    num_bytes: int = 0
    num_words: int = 0
    num_tokens: int = 0
    num_known_bytes: int = 0
    num_fragments: int = 0
    num_checked: int = 0
    num_lost: int = 0
    first_loss: str = ""

    @property
    def bytes_per_token(self) -> float:
        """Mean length of a token in bytes; a higher number means shorter sequences."""
        return self.num_bytes / self.num_tokens

    def to_dict(self) -> dict[str, Any]:
        """The counts and ratios as JSON values.

        ``tokens_per_word`` is the "fertility". ``coverage`` is the fraction of the bytes that the vocabulary
        can encode; it is below 1 if words are unknown. ``fragment_share`` is the fraction of tokens that are
        parts of a character, which is high for scripts that the vocabulary was not trained on.
        """
        return {
            "documents": self.num_documents,
            "bytes": self.num_bytes,
            "words": self.num_words,
            "tokens": self.num_tokens,
            "bytes_per_token": self.bytes_per_token,
            "tokens_per_word": self.num_tokens / max(1, self.num_words),
            "coverage": min(1.0, self.num_known_bytes / self.num_bytes),
            "fragment_share": self.num_fragments / self.num_tokens,
            "round_trip": {"checked": self.num_checked, "lost": self.num_lost, "first_loss": self.first_loss},
        }


@dataclass(frozen=True)
class TokenizerQuality:
    """How a tokenizer encodes several texts.

    Attributes:
        counts: Number of occurrences of each token in all texts, int64 ``(vocabulary_size,)``.
        tokens_per_stretch: Number of tokens that end in each stretch of the concatenated texts.
        bytes_per_stretch: Lengths of the stretches.
    """

    tokenizer: BaseTokenizer
    texts: tuple[TextQuality, ...]
    counts: npt.NDArray[np.int64]
    tokens_per_stretch: npt.NDArray[np.int64]
    bytes_per_stretch: npt.NDArray[np.int64]

    @property
    def total(self) -> TextQuality:
        """The measures of all texts together."""
        first_losses = (text.first_loss for text in self.texts if text.first_loss)
        total = TextQuality("all", first_loss=next(first_losses, ""))
        for name in [name for name in vars(total) if name.startswith("num_")]:
            setattr(total, name, sum(getattr(text, name) for text in self.texts))
        return total

    def ids_with_counts(self, least: int, below: int) -> npt.NDArray[np.int64]:
        """Ids of the tokens that stand for text and occur from ``least`` to ``below - 1`` times."""
        is_ordinary = self.tokenizer.token_byte_lengths() > 0
        return np.flatnonzero(is_ordinary & (self.counts >= least) & (self.counts < below))

    def to_dict(self, rare_below: int) -> dict[str, Any]:
        """The measures of all texts and of each one, and the unused and rare tokens, as JSON values.

        A token that occurs less often than ``rare_below`` is too rare to learn much about.
        """
        num_ordinary = max(1, int((self.tokenizer.token_byte_lengths() > 0).sum()))
        used: dict[str, Any] = {}
        for name, least, below in (("unused_tokens", 0, 1), ("rare_tokens", 1, rare_below)):
            ids = self.ids_with_counts(least, below)
            # The newest tokens, which training added last; examples of bytes would say little.
            examples = [shown_token(self.tokenizer, index) for index in ids[::-1][:_NUM_EXAMPLES].tolist()]
            used[name] = {"count": len(ids), "share": len(ids) / num_ordinary, "examples": examples}
        files = [{"name": text.name, **text.to_dict()} for text in self.texts]
        return {**self.total.to_dict(), **used, "rare_below": rare_below, "files": files}


def describe_tokenizer(tokenizer: BaseTokenizer) -> dict[str, Any]:
    """The properties of a tokenizer as JSON values."""
    lengths = tokenizer.token_byte_lengths()
    longest = sorted(range(len(lengths)), key=lambda index: -int(lengths[index]))[:_NUM_EXAMPLES]
    return {
        "kind": type(tokenizer).__name__,
        "vocabulary_size": tokenizer.vocabulary_size,
        "special_tokens": tokenizer.special_tokens,
        "is_lossless": tokenizer.is_lossless,
        "encoder": tokenizer.encoder,
        "fingerprint": tokenizer.fingerprint(),
        "longest_tokens": [shown_token(tokenizer, index) for index in longest],
    }


def shown_token(tokenizer: BaseTokenizer, token_id: int) -> str:
    """The text of one token; bytes that are not a whole character are shown as ``\\x..``."""
    return tokenizer.token_bytes(token_id).decode("utf-8", errors="backslashreplace")


def measure_tokenizer(tokenizer: BaseTokenizer, texts: Sequence[NamedText]) -> TokenizerQuality:
    """Encode texts once, document by document, and count their tokens.

    Raises:
        DataError: The texts are empty.
        TokenizerError: A document is not valid text.
    """
    stretches = _Stretches()
    counts = np.zeros(tokenizer.vocabulary_size, dtype=np.int64)
    lengths = tokenizer.token_byte_lengths()
    pieces = [tokenizer.token_bytes(index) for index in range(len(lengths))]
    is_fragment = np.array([len(piece) == 1 and piece[0] >= 0x80 for piece in pieces])
    measured = [TextQuality(name) for name, _ in texts]
    for text, (_, read) in zip(measured, texts, strict=True):
        unchecked = _CHECKED_CHARACTERS
        for batch, num_documents in text_batches(tokenizer, read()):
            encoded = tokenizer.encode_batch(batch)
            num_bytes = sum(map(utf8_length, batch))
            token_lengths = lengths[encoded.ids]
            stretches.add(token_lengths, num_bytes)
            counts += np.bincount(encoded.ids, minlength=len(counts))
            text.num_documents += num_documents
            text.num_bytes += num_bytes
            text.num_words += sum(len(part.split()) for part in batch)
            text.num_tokens += len(encoded.ids)
            text.num_known_bytes += int(token_lengths.sum())
            text.num_fragments += int(is_fragment[encoded.ids].sum())
            if unchecked > 0:
                unchecked -= sum(map(len, batch))
                losses = _losses(tokenizer, batch, encoded)
                text.num_checked += len(batch)
                text.num_lost += len(losses)
                text.first_loss = text.first_loss or next(iter(losses), "")
    if not any(text.num_tokens for text in measured):
        raise DataError("there is no text to measure the tokenizer on", "give files with text")
    return TokenizerQuality(tokenizer, tuple(measured), counts, *stretches.arrays())


def compare_tokenizers(first: TokenizerQuality, second: TokenizerQuality, seed: int = 0) -> Interval:
    """How many more tokens per byte ``second`` needs than ``first`` on the same texts, by a paired bootstrap.

    Text varies far more from place to place than two tokenizers differ; pairing the stretches cancels this.

    Raises:
        DataError: They were measured on different texts.
    """
    if not np.array_equal(first.bytes_per_stretch, second.bytes_per_stretch):
        raise DataError("two tokenizers were measured on different texts", "measure both on the same files")
    counts = first.tokens_per_stretch, second.tokens_per_stretch
    return paired_ratio_bootstrap(*counts, first.bytes_per_stretch, seed)


class _Stretches:
    """The number of tokens that end in each stretch of a text given in batches."""

    def __init__(self) -> None:
        self._num_bytes = 0
        self._counts: list[tuple[int, npt.NDArray[np.int64]]] = []

    def add(self, lengths: npt.NDArray[np.int64], num_bytes: int) -> None:
        """Add a batch, given the bytes of each token and of the text."""
        if not num_bytes:
            return
        ends = np.cumsum(lengths)
        if len(ends) and ends[-1] != num_bytes:
            # Some tokens stand for text of unknown length, so the bytes are spread evenly.
            ends = np.arange(1, len(ends) + 1) * num_bytes // len(ends)
        places = (np.maximum(ends, 1) - 1 + self._num_bytes) // STRETCH_BYTES
        first = self._num_bytes // STRETCH_BYTES
        self._counts.append((first, np.bincount(places - first)))
        self._num_bytes += num_bytes

    def arrays(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        num_stretches = -(-self._num_bytes // STRETCH_BYTES)
        tokens = np.zeros(num_stretches, dtype=np.int64)
        for first, counts in self._counts:
            tokens[first : first + len(counts)] += counts
        sizes = np.full(num_stretches, STRETCH_BYTES, dtype=np.int64)
        if num_stretches:
            sizes[-1] = self._num_bytes - STRETCH_BYTES * (num_stretches - 1)
        return tokens, sizes


def text_batches(tokenizer: BaseTokenizer, documents: Iterable[str]) -> Iterator[tuple[list[str], int]]:
    """Documents in batches, long ones in parts; each batch with the number of documents that end in it."""
    batch: list[str] = []
    size = ended = 0
    for document in documents:
        for part in tokenizer.text_parts(document, _BATCH_CHARACTERS):
            batch.append(part)
            size += len(part)
            if size >= _BATCH_CHARACTERS:
                yield batch, ended
                batch, size, ended = [], 0, 0
        ended += 1
    if batch or ended:
        yield batch, ended


def _losses(tokenizer: BaseTokenizer, batch: list[str], encoded: EncodedBatch) -> list[str]:
    """Describe each text that decoding changes, from the first difference on."""
    bounds = zip(encoded.offsets, encoded.offsets[1:], strict=False)
    pairs = zip(batch, (tokenizer.decode(encoded.ids[a:b]) for a, b in bounds), strict=True)
    return [_difference(text, decoded) for text, decoded in pairs if text != decoded]


def _difference(text: str, decoded: str) -> str:
    shorter = min(len(text), len(decoded))
    place = next((i for i in range(shorter) if text[i] != decoded[i]), shorter)
    shown = [f"{part[place : place + _SHOWN_CHARACTERS]!r}" for part in (text, decoded)]
    return f"character {place:,}: {shown[0]} comes back as {shown[1]}"
