"""How well a tokenizer fits a text: how short it makes it, which tokens it uses, and whether it loses any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from insight.data.tokenizers.base import BaseTokenizer, EncodedBatch, utf8_length
from insight.runtime.errors import DataError
from insight.runtime.statistics import Interval, paired_ratio_bootstrap

STRETCH_BYTES = 4096
"""Tokenizers are compared over stretches of text of this length; a token belongs to the one it ends in."""
# Text encoded at once, and text of each file that is decoded again.
_BATCH_CHARACTERS = 1 << 20
_CHECKED_CHARACTERS = 1 << 20
_SHOWN_CHARACTERS = 60

NamedText = tuple[str, Callable[[], Iterable[str]]]
"""What a text is called, and its documents, which may be asked for again."""


@dataclass(frozen=True)
class TextQuality:
    """What a tokenizer makes of one text.

    Attributes:
        name: What the text is called.
        num_documents: Documents.
        num_bytes: Their length in UTF-8.
        num_words: Runs of characters that are not white space.
        num_tokens: Tokens, without those that end documents.
        num_known_bytes: Bytes that the tokens stand for.
        num_fragments: Tokens that are one byte of a character of several.
        num_checked: Documents (of a long one, parts) that were decoded again.
        num_lost: Those of them that did not come back as they were.
        first_loss: Where the first of those begins to differ.
    """

    name: str
    num_documents: int
    num_bytes: int
    num_words: int
    num_tokens: int
    num_known_bytes: int
    num_fragments: int
    num_checked: int
    num_lost: int
    first_loss: str

    @property
    def bytes_per_token(self) -> float:
        """Bytes that a token saves writing; more is shorter."""
        return self.num_bytes / self.num_tokens

    @property
    def tokens_per_word(self) -> float:
        """Tokens that a word takes ("fertility"); 1 is a token a word."""
        return self.num_tokens / max(1, self.num_words)

    @property
    def coverage(self) -> float:
        """Share of the bytes that the vocabulary can write; below 1 where words are unknown."""
        return min(1.0, self.num_known_bytes / self.num_bytes)

    @property
    def fragment_share(self) -> float:
        """Share of tokens that are parts of a character: scripts that the vocabulary never learnt."""
        return self.num_fragments / self.num_tokens


@dataclass(frozen=True)
class TokenizerQuality:
    """What a tokenizer makes of several texts.

    Attributes:
        tokenizer: It.
        texts: Each text on its own.
        counts: How often each token occurs in all of them, int64 ``(vocabulary_size,)``.
        tokens_per_stretch: Tokens that end in each stretch of all texts, one after the other.
        bytes_per_stretch: Their lengths.
    """

    tokenizer: BaseTokenizer
    texts: tuple[TextQuality, ...]
    counts: npt.NDArray[np.int64]
    tokens_per_stretch: npt.NDArray[np.int64]
    bytes_per_stretch: npt.NDArray[np.int64]

    @property
    def total(self) -> TextQuality:
        """All texts as one."""
        first_losses = [text.first_loss for text in self.texts if text.first_loss]
        sums = {
            name: sum(getattr(text, name) for text in self.texts)
            for name in TextQuality.__dataclass_fields__
            if name.startswith("num_")
        }
        return TextQuality(name="all", first_loss=next(iter(first_losses), ""), **sums)

    @property
    def ordinary_ids(self) -> npt.NDArray[np.int64]:
        """Ids that stand for text."""
        return np.flatnonzero(self.tokenizer.token_byte_lengths() > 0)

    def unused_ids(self) -> npt.NDArray[np.int64]:
        """Ordinary tokens that never occur."""
        return self._with_counts(0, 1)

    def rare_ids(self, rare_below: int) -> npt.NDArray[np.int64]:
        """Ordinary tokens that occur, but less often than ``rare_below``: too seldom to learn much about."""
        return self._with_counts(1, rare_below)

    def _with_counts(self, least: int, below: int) -> npt.NDArray[np.int64]:
        ids = self.ordinary_ids
        counts = self.counts[ids]
        return ids[(counts >= least) & (counts < below)]


def measure_tokenizer(tokenizer: BaseTokenizer, texts: Sequence[NamedText]) -> TokenizerQuality:
    """Encode texts and count.

    Args:
        tokenizer: Any.
        texts: Read once, document by document.

    Raises:
        DataError: There is no text.
        TokenizerError: A document is no valid text.
    """
    stretches = _Stretches()
    counts = np.zeros(tokenizer.vocabulary_size, dtype=np.int64)
    measured = tuple(_measure(tokenizer, name, read(), counts, stretches) for name, read in texts)
    if not sum(text.num_tokens for text in measured):
        raise DataError("there is no text to measure the tokenizer on", "give files with text")
    return TokenizerQuality(tokenizer, measured, counts, *stretches.arrays())


def compare_tokenizers(first: TokenizerQuality, second: TokenizerQuality, seed: int = 0) -> Interval:
    """Tokens a byte that ``second`` needs more than ``first`` on the same texts, over paired stretches.

    Text differs far more from place to place than two tokenizers do; on pairs that cancels.

    Raises:
        DataError: They were measured on different texts.
    """
    if not np.array_equal(first.bytes_per_stretch, second.bytes_per_stretch):
        raise DataError("two tokenizers were measured on different texts", "measure both on the same files")
    return paired_ratio_bootstrap(
        first.tokens_per_stretch, second.tokens_per_stretch, first.bytes_per_stretch, seed
    )


class _Stretches:
    """How many tokens end in each stretch of a text that is handed over in batches."""

    def __init__(self) -> None:
        self._num_bytes = 0
        self._counts: list[npt.NDArray[np.int64]] = []
        self._first: list[int] = []

    def add(self, lengths: npt.NDArray[np.int64], num_bytes: int) -> None:
        """Add a batch: the bytes of each token, and those of the text."""
        if not num_bytes:
            return
        ends = np.cumsum(lengths)
        if len(ends) and ends[-1] != num_bytes:
            # Some tokens stand for text of unknown length: spread the whole evenly.
            ends = np.arange(1, len(ends) + 1) * num_bytes // len(ends)
        places = (np.maximum(ends, 1) - 1 + self._num_bytes) // STRETCH_BYTES
        first = self._num_bytes // STRETCH_BYTES
        self._first.append(first)
        self._counts.append(np.bincount(places - first).astype(np.int64))
        self._num_bytes += num_bytes

    def arrays(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Tokens and bytes of each stretch."""
        num_stretches = -(-self._num_bytes // STRETCH_BYTES)
        tokens = np.zeros(num_stretches, dtype=np.int64)
        for first, counts in zip(self._first, self._counts, strict=True):
            tokens[first : first + len(counts)] += counts
        sizes = np.full(num_stretches, STRETCH_BYTES, dtype=np.int64)
        if num_stretches:
            sizes[-1] = self._num_bytes - STRETCH_BYTES * (num_stretches - 1)
        return tokens, sizes


def _measure(
    tokenizer: BaseTokenizer,
    name: str,
    documents: Iterable[str],
    counts: npt.NDArray[np.int64],
    stretches: _Stretches,
) -> TextQuality:
    lengths = tokenizer.token_byte_lengths()
    is_fragment = np.array([len(piece) == 1 and piece[0] >= 0x80 for piece in _pieces(tokenizer)])
    sums = dict.fromkeys(("documents", "bytes", "words", "tokens", "known_bytes", "fragments"), 0)
    checked, lost, first_loss, unchecked = 0, 0, "", _CHECKED_CHARACTERS
    for batch, num_documents in text_batches(tokenizer, documents):
        encoded = tokenizer.encode_batch(batch)
        num_bytes = sum(map(utf8_length, batch))
        token_lengths = lengths[encoded.ids]
        stretches.add(token_lengths, num_bytes)
        counts += np.bincount(encoded.ids, minlength=len(counts))
        sums["documents"] += num_documents
        sums["bytes"] += num_bytes
        sums["words"] += sum(len(text.split()) for text in batch)
        sums["tokens"] += len(encoded.ids)
        sums["known_bytes"] += int(token_lengths.sum())
        sums["fragments"] += int(is_fragment[encoded.ids].sum())
        if unchecked > 0:
            unchecked -= sum(map(len, batch))
            losses = _losses(tokenizer, batch, encoded)
            checked += len(batch)
            lost += len(losses)
            first_loss = first_loss or next(iter(losses), "")
    return TextQuality(
        name=name,
        num_checked=checked,
        num_lost=lost,
        first_loss=first_loss,
        **{f"num_{key}": value for key, value in sums.items()},
    )


def text_batches(tokenizer: BaseTokenizer, documents: Iterable[str]) -> Iterator[tuple[list[str], int]]:
    """Documents together, long ones in parts; with how many documents end in each batch."""
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
    """The texts that do not come back, each from where it begins to differ."""
    bounds = zip(encoded.offsets, encoded.offsets[1:], strict=False)
    pairs = zip(batch, (tokenizer.decode(encoded.ids[a:b]) for a, b in bounds), strict=True)
    return [_difference(text, decoded) for text, decoded in pairs if text != decoded]


def _difference(text: str, decoded: str) -> str:
    shorter = min(len(text), len(decoded))
    place = next((i for i in range(shorter) if text[i] != decoded[i]), shorter)
    shown = [f"{part[place : place + _SHOWN_CHARACTERS]!r}" for part in (text, decoded)]
    return f"character {place:,}: {shown[0]} comes back as {shown[1]}"


def _pieces(tokenizer: BaseTokenizer) -> list[bytes]:
    return [tokenizer.token_bytes(index) for index in range(tokenizer.vocabulary_size)]
