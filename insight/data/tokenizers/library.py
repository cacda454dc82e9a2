"""Tokenizers based on the library `tokenizers`: long texts in parts, each distinct word encoded once."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from insight.data.sources.cuts import PIECE_CHARACTERS, cut_text, safe_cut
from insight.data.tokenizers import tokenizer_json as parts
from insight.data.tokenizers.base import BaseTokenizer, EncodedBatch, utf8_length
from insight.data.tokenizers.fast_encoder import ENCODING_ERRORS, FastEncoder, proven_encoder
from insight.data.tokenizers.segments import LRUCache, SegmentEncoder, segment_pattern
from insight.runtime.errors import TokenizerError
from insight.runtime.memory_watcher import process_watcher
from insight.runtime.messages import say

# Setting up the fast encoder takes as long as encoding this many characters without it.
_FAST_FROM_CHARACTERS = 1 << 17
_CACHE_ENTRIES = 1 << 17
_CACHE_BYTES = 1 << 25
# Training time grows with the square of the longest word; words of a language are far shorter.
_LONGEST_WORD = 1024
_WHITE_SPACE = re.compile(r"\s")
_OTHER = re.compile(r"\S")
# Letters and digits, punctuation and marks, white space: no rule has a word of more than one of these kinds,
# except for a character at one of its ends.
_LONG_RUN = re.compile(rf"\w{{{_LONGEST_WORD},}}|[^\w\s]{{{_LONGEST_WORD},}}|\s{{{_LONGEST_WORD},}}")


class LibraryTokenizer(BaseTokenizer):
    """A tokenizer of the library `tokenizers` (Rust).

    If :meth:`_boundaries` names white space before which a text may be cut, the text is cut there and each
    distinct word is encoded once; otherwise the library encodes every text as a whole.

    Args:
        tokenizer_json: The content of a ``tokenizer.json``. Options such as dropout are cleared
            (:func:`without_run_time_options`).
        end_of_text: Name of the special token that ends a document.

    Raises:
        TokenizerError: The content is damaged or lacks ``end_of_text``.
    """

    def __init__(self, tokenizer_json: str, end_of_text: str) -> None:
        from tokenizers import Tokenizer

        try:
            written = parts.parsed(tokenizer_json, "tokenizer.json")
            cleared = parts.without_run_time_options(written)
            if cleared is not written:
                tokenizer_json = json.dumps(cleared, ensure_ascii=False)
            self._library: Any = Tokenizer.from_str(tokenizer_json)
        except TokenizerError:
            raise
        except Exception as error:  # The library raises bare Exception.
            raise TokenizerError(f"not a tokenizer.json ({error})", "make or fetch it again") from error
        # Names of special tokens inside a text are plain text. The file cannot store this option.
        self._library.encode_special_tokens = True
        self._json: str = self._library.to_str(pretty=False)
        data = json.loads(self._json)
        added = data["added_tokens"]
        self._special = {token["content"]: int(token["id"]) for token in added if token["special"]}
        self._plain_added = {int(token["id"]): token["content"] for token in added if not token["special"]}
        if end_of_text not in self._special:
            raise TokenizerError(f"no special token {end_of_text!r} in this tokenizer", "add it")
        self._state = (self._json, end_of_text)
        self.end_of_text_id = self._special[end_of_text]
        # A pre-tokenizer that writes ▁ for spaces decodes a ▁ of the text as a space.
        has_metaspace = "Metaspace" in json.dumps(data.get("pre_tokenizer"))
        changes_text = data.get("normalizer") is not None or has_metaspace
        self.is_lossless = type(self).is_lossless and not changes_text
        self._text_of = parts.token_text_of(data)
        self._vocabulary: dict[str, int] = self._library.get_vocab(with_added_tokens=True)
        self.vocabulary_size = max(self._vocabulary.values()) + 1
        self.boundaries = before = self._boundaries(data)
        self._segments: SegmentEncoder | None = None
        if before is not None:
            self._safe_cut = safe_cut(before)
            cache: LRUCache[str, bytes] = LRUCache(_CACHE_ENTRIES, _CACHE_BYTES)
            process_watcher().register(cache)
            self._segments = SegmentEncoder(segment_pattern(before), self._encode_with_library, cache)

    def __getstate__(self) -> tuple[str, str]:
        return self._state

    def __setstate__(self, state: tuple[str, str]) -> None:
        LibraryTokenizer.__init__(self, *state)

    def _boundaries(self, data: dict[str, Any]) -> str | None:
        """The white space before which a text may be cut (:attr:`PreTokenizer.boundaries`), or ``None``."""
        rule = parts.pre_tokenizer_of(data)
        # Plain text added as a token may contain white space, and is found before words are cut.
        is_known = data.get("normalizer") in parts.NORMALIZATIONS.values() and not self._plain_added
        return rule.boundaries if rule and is_known else None

    @property
    def special_tokens(self) -> dict[str, int]:
        return dict(self._special)

    @property
    def cache(self) -> LRUCache[str, bytes] | None:
        """The cache of the ids of earlier words, or ``None``; see ``cache.statistics()``."""
        return self._segments.cache if self._segments else None

    @property
    def encoder(self) -> str:
        import tokenizers

        return self._fast.name if self._fast else f"tokenizers {tokenizers.__version__}"

    def to_json(self) -> str:
        return self._json

    def _encode(self, texts: Sequence[str]) -> EncodedBatch:
        if sum(map(len, texts)) >= _FAST_FROM_CHARACTERS and self._fast:
            with contextlib.suppress(*ENCODING_ERRORS):
                return self._fast.encode(texts)
        return self._encode_exactly(texts)

    def encode_pieces(self, pieces: Sequence[str]) -> npt.NDArray[Any]:
        if sum(map(len, pieces)) >= _FAST_FROM_CHARACTERS and self._fast:
            with contextlib.suppress(*ENCODING_ERRORS):
                return self._fast.encode_flat(pieces)[0]
        return self._encode_exactly(pieces).ids

    @functools.cached_property
    def _fast(self) -> FastEncoder | None:
        """The fast encoder, made and checked against the exact one at the first long text."""
        return proven_encoder(self._json, list(self._special), self._encode_exactly)

    def _encode_exactly(self, texts: Sequence[str]) -> EncodedBatch:
        if self._segments is None:
            lists = self._encode_with_library(list(texts))
            offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
            ids = np.fromiter(itertools.chain.from_iterable(lists), np.int64, offsets[-1])
            return EncodedBatch(ids, offsets)
        pieces: list[str] = []
        first_piece = [0]
        for text in texts:
            pieces += [text] if len(text) <= PIECE_CHARACTERS else self.text_parts(text, PIECE_CHARACTERS)
            first_piece.append(len(pieces))
        ids, piece_offsets = self._segments.encode(pieces)
        return EncodedBatch(ids, piece_offsets[first_piece])

    def _encode_with_library(self, texts: list[str]) -> list[list[int]]:
        # encode_batch_fast computes no character offsets, and releases the GIL.
        with parallel_library():
            encoded = self._library.encode_batch_fast(texts, add_special_tokens=False)
        return [item.ids for item in encoded]

    def _token_bytes(self) -> list[bytes]:
        pieces = [b""] * self.vocabulary_size
        for token, index in self._vocabulary.items():
            pieces[index] = b"" if token in self._special else self._text_of(token)
        for index, content in self._plain_added.items():
            pieces[index] = content.encode("utf-8")
        return pieces


@contextlib.contextmanager
def parallel_library() -> Iterator[None]:
    """Let the library use all cores inside the block, whatever ``TOKENIZERS_PARALLELISM`` says.

    Programs that fork data workers turn the variable off; encoding and training happen before any fork.
    """
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "true"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)  # Another thread may have removed it.
        else:
            os.environ[name] = before


def trained(untrained: dict[str, Any], trainer: str, texts: TrainingPieces, options: dict[str, Any]) -> str:
    """The content of a ``tokenizer.json`` after training by one of the library's trainers.

    Raises:
        TokenizerError: The texts are empty.
    """
    import tokenizers

    library: Any = tokenizers.Tokenizer.from_str(json.dumps(untrained))
    with parallel_library():
        kind = getattr(tokenizers.trainers, trainer)
        library.train_from_iterator(texts, kind(show_progress=False, **options))
    texts.say_divided()
    if texts.num_bytes == 0:
        raise TokenizerError("no text to train the tokenizer on", "give files with text")
    content: str = library.to_str(pretty=False)
    return content


class TrainingPieces:
    """Texts in pieces for a trainer, which counts the words of several pieces at a time.

    Args:
        boundaries: White space before which they may be cut.
        divides_words: Whether words of more than 1,024 characters are divided, because training time grows
            with the square of their length. They are encoded data, base sequences or rows of equal characters
            rather than words of a language.
    """

    def __init__(self, texts: Iterable[str], boundaries: str, divides_words: bool = False) -> None:
        self._texts = texts
        self._place = safe_cut(boundaries)
        self._divides_words = divides_words
        self._num_divided = self._longest = 0
        self.num_bytes = 0  # The UTF-8 length of the texts yielded so far.

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.num_bytes += utf8_length(text)
            for piece in cut_text(text, place=self._place):
                if self._divides_words and _may_have_long_run(piece):
                    yield from self._divided(piece)
                else:
                    yield piece

    def say_divided(self) -> None:
        """Print how many words were divided, if any were."""
        if self._num_divided:
            say(
                f"{self._num_divided:,} runs of {_LONGEST_WORD:,} characters or more without a word boundary "
                f"(the longest has {self._longest:,}) were divided to train the tokenizer"
            )

    def _divided(self, piece: str) -> Iterator[str]:
        start = 0
        for match in _LONG_RUN.finditer(piece.replace("_", "-")):  # Python counts _ as a letter.
            self._num_divided += 1
            self._longest = max(self._longest, len(match[0]))
            for cut in range(match.start() + _LONGEST_WORD, match.end(), _LONGEST_WORD):
                yield piece[start:cut]
                start = cut
        yield piece[start:]


def _may_have_long_run(piece: str) -> bool:
    """A fast check whether a stretch of ``piece`` has no white space or consists of it."""
    step = _LONGEST_WORD // 2
    # A run covers one of these windows completely, and in natural text each search ends after a word.
    return any(
        not _WHITE_SPACE.search(piece, start, start + step) or not _OTHER.search(piece, start, start + step)
        for start in range(0, len(piece) - step + 1, step)
    )
