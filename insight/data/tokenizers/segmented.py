"""Tokenizers that may cut a text at certain places: long texts in parts, each distinct word encoded once."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy.typing as npt

from insight.data.tokenizers.base import EncodedBatch, check_length, utf8_length
from insight.data.tokenizers.fast_encoder import ENCODING_ERRORS, FastEncoder, proven_encoder
from insight.data.tokenizers.library import LibraryTokenizer
from insight.data.tokenizers.lru_cache import LRUCache
from insight.data.tokenizers.pre_tokenizers import PRE_TOKENIZERS
from insight.data.tokenizers.segments import SegmentEncoder, segment_pattern
from insight.runtime.errors import TokenizerError
from insight.runtime.memory_watcher import process_watcher

# Long texts are handed to the trainer, and encoded, in pieces of about this many characters.
_PIECE_CHARACTERS = 1 << 14
# Setting up the fast encoder takes as long as encoding this much without it.
_FAST_FROM_CHARACTERS = 1 << 17
# Encoding one word takes far more memory than its characters; a longer one is data, not text.
_MOST_UNCUT_CHARACTERS = 1 << 25
# A place to cut is first looked for this close to the end of what was read.
_SEARCHED_CHARACTERS = 1 << 12
_CACHE_ENTRIES = 1 << 17
_CACHE_BYTES = 1 << 25


class SegmentedTokenizer(LibraryTokenizer):
    """A tokenizer whose ids do not depend on what stands beyond certain white space, if :meth:`_boundaries`
    names some; otherwise every text goes to the library as a whole.
    """

    def _boundaries(self, data: dict[str, Any]) -> str | None:
        """Before which white space a text may be cut (:attr:`PreTokenizer.boundaries`); ``None`` nowhere.

        Args:
            data: The content of the ``tokenizer.json``.
        """
        raise NotImplementedError

    def _start(self, tokenizer_json: str, end_of_text: str) -> None:
        super()._start(tokenizer_json, end_of_text)
        self._cut_before = boundaries = self._boundaries(json.loads(self._json))
        self._safe_cut: re.Pattern[str] | None = None
        self._segments: SegmentEncoder | None = None
        if boundaries is not None:
            cache: LRUCache[str, bytes] = LRUCache(_CACHE_ENTRIES, _CACHE_BYTES)
            process_watcher().register(cache)
            self._safe_cut = safe_cut(boundaries)
            self._segments = SegmentEncoder(segment_pattern(boundaries), self._encode_with_library, cache)

    @property
    def boundaries(self) -> str | None:
        return self._cut_before

    @property
    def cache(self) -> LRUCache[str, bytes] | None:
        """The ids of words met before, if any are kept; ``cache.statistics()`` says how well it serves."""
        return self._segments.cache if self._segments else None

    def text_parts(self, text: str, num_characters: int) -> Iterator[str]:
        return cut_text(text, num_characters, self._safe_cut) if self._safe_cut else iter((text,))

    def stream_parts(self, chunks: Iterable[str], num_characters: int) -> Iterator[str]:
        if self._safe_cut is None:
            return super().stream_parts(chunks, num_characters)
        return cut_stream(chunks, num_characters, self._safe_cut)

    @property
    def encoder(self) -> str:
        return self._fast.name if self._fast else super().encoder

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
        """Made, and compared with the exact one, when the first long text comes."""
        return proven_encoder(self._json, list(self._special), self._encode_exactly)

    def _encode_exactly(self, texts: Sequence[str]) -> EncodedBatch:
        if self._segments is None:
            return super()._encode(texts)
        pieces: list[str] = []
        first_piece = [0]
        for text in texts:
            if len(text) <= _PIECE_CHARACTERS:
                pieces.append(text)
            else:
                pieces += self.text_parts(text, _PIECE_CHARACTERS)
            first_piece.append(len(pieces))
        ids, piece_offsets = self._segments.encode(pieces)
        return EncodedBatch(ids, piece_offsets[first_piece])


# Letters and digits since early versions of Unicode, so that every library calls them so, which stay so in
# every normalization: ASCII, Latin, Greek, Cyrillic, kana, Han, Hangul.
_LETTERS = (
    r"0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u012f\u0131-\u013e\u0141-\u01ba"
    r"\u0391-\u03a1\u03a3-\u03ce\u0400-\u0481\u3041-\u3094\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
)
# Ends of sentences and brackets of scripts that write no spaces; punctuation also when normalized.
_WIDE_PUNCTUATION = r"\u3001\u3002\u300c-\u300f\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f"


def safe_cut(boundaries: str) -> re.Pattern[str]:
    """Matches the places where a text may be cut.

    A place is told by the character before it and the one behind it alone. Besides ``boundaries``, and
    whatever the rule: between a letter or digit and a line break or wide punctuation. All rules end a word
    there, and none looks further ahead; the library never joins the two.
    """
    return re.compile(rf"(?<=\S)(?=[{boundaries}])|(?<=[{_LETTERS}])(?=[\r\n{_WIDE_PUNCTUATION}])")


_GPT2_CUT = safe_cut(PRE_TOKENIZERS["gpt2"].boundaries)
EVERY_RULE_CUT = safe_cut(r" \t")
"""Where a text may be cut whichever of the rules it is for."""


def cut_text(
    text: str, num_characters: int = _PIECE_CHARACTERS, place: re.Pattern[str] = _GPT2_CUT
) -> Iterator[str]:
    """``text`` in pieces of at least ``num_characters``, cut only where ``place`` allows it.

    Raises:
        TokenizerError: ``num_characters`` is below 1.
    """
    check_length(num_characters)
    start = 0
    while len(text) - start > 2 * num_characters:
        match = place.search(text, start + num_characters)
        if match is None:
            break
        yield text[start : match.start()]
        start = match.start()
    yield text[start:]


def cut_stream(
    chunks: Iterable[str], num_characters: int, place: re.Pattern[str] = EVERY_RULE_CUT
) -> Iterator[str]:
    """The one text that ``chunks`` make, in pieces as of :func:`cut_text`; little more than one is held.

    Raises:
        TokenizerError: Millions of characters without a place to cut, or ``num_characters`` is below 1.
    """
    check_length(num_characters)
    held = ""
    searched = 0
    for chunk in chunks:
        if len(chunk) <= 2 * num_characters:
            # Mostly one piece a chunk, which is then copied as seldom as possible.
            match = place.search(chunk, max(1, len(chunk) - _SEARCHED_CHARACTERS))
            if match is not None and len(held) + match.start() >= num_characters:
                yield held + chunk[: match.start()]
                held, searched = chunk[match.start() :], 0
                continue
        held += chunk
        start = 0
        while len(held) - start > 2 * num_characters:
            match = place.search(held, max(start + num_characters, searched))
            if match is None:
                # The next chunk decides whether behind the last character is a place.
                searched = len(held)
                break
            yield held[start : match.start()]
            start = match.start()
        held, searched = held[start:], max(0, searched - start)
        if len(held) > 2 * num_characters + _MOST_UNCUT_CHARACTERS:
            raise TokenizerError(
                f"{len(held):,} characters without white space behind a word, so they cannot be cut",
                "break them into lines, or use ByteTokenizerConfig",
            )
    yield held


class CountedPieces:
    """Texts in pieces for a trainer, which counts words in parallel by piece; counts their bytes.

    Args:
        texts: Any texts.
        boundaries: Before which white space they may be cut.

    Attributes:
        num_bytes: UTF-8 length of the texts that have been handed out.
    """

    def __init__(self, texts: Iterable[str], boundaries: str) -> None:
        self._texts = texts
        self._place = safe_cut(boundaries)
        self.num_bytes = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.num_bytes += utf8_length(text)
            yield from cut_text(text, place=self._place)
