"""Tokenizers that may cut a text at certain places: long texts in parts, each distinct word encoded once."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from insight.data.tokenizers.base import EncodedBatch, utf8_length
from insight.data.tokenizers.fast_encoder import ENCODING_ERRORS, FastEncoder, proven_encoder
from insight.data.tokenizers.library import LibraryTokenizer
from insight.data.tokenizers.lru_cache import LRUCache
from insight.data.tokenizers.pre_tokenizers import PRE_TOKENIZERS
from insight.data.tokenizers.segments import SegmentEncoder, segment_pattern
from insight.runtime.memory_watcher import process_watcher

# Long texts are handed to the trainer, and encoded, in pieces of about this many characters.
_PIECE_CHARACTERS = 1 << 14
# Setting up the fast encoder takes as long as encoding this much without it.
_FAST_FROM_CHARACTERS = 1 << 17
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
        boundaries = self._boundaries(json.loads(self._json))
        self._safe_cut: re.Pattern[str] | None = None
        self._segments: SegmentEncoder | None = None
        if boundaries is not None:
            cache: LRUCache[str, bytes] = LRUCache(_CACHE_ENTRIES, _CACHE_BYTES)
            process_watcher().register(cache)
            self._safe_cut = safe_cut(boundaries)
            self._segments = SegmentEncoder(segment_pattern(boundaries), self._encode_with_library, cache)

    @property
    def cache(self) -> LRUCache[str, bytes] | None:
        """The ids of words met before, if any are kept; ``cache.statistics()`` says how well it serves."""
        return self._segments.cache if self._segments else None

    def text_parts(self, text: str, num_characters: int) -> Iterator[str]:
        return cut_text(text, num_characters, self._safe_cut) if self._safe_cut else iter((text,))

    @property
    def encoder(self) -> str:
        return self._fast.name if self._fast else super().encoder

    def _encode(self, texts: Sequence[str]) -> EncodedBatch:
        if sum(map(len, texts)) >= _FAST_FROM_CHARACTERS and self._fast:
            with contextlib.suppress(*ENCODING_ERRORS):
                return self._fast.encode(texts)
        return self._encode_exactly(texts)

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
            pieces += self.text_parts(text, _PIECE_CHARACTERS)
            first_piece.append(len(pieces))
        ids, piece_offsets = self._segments.encode(pieces)
        return EncodedBatch(ids, piece_offsets[first_piece])


def safe_cut(boundaries: str) -> re.Pattern[str]:
    """Matches the places where a text may be cut."""
    return re.compile(rf"(?<=\S)(?=[{boundaries}])")


_GPT2_CUT = safe_cut(PRE_TOKENIZERS["gpt2"].boundaries)


def cut_text(
    text: str, num_characters: int = _PIECE_CHARACTERS, place: re.Pattern[str] = _GPT2_CUT
) -> Iterator[str]:
    """``text`` in pieces of at least ``num_characters``, cut only where ``place`` allows it."""
    start = 0
    while len(text) - start > 2 * num_characters:
        match = place.search(text, start + num_characters)
        if match is None:
            break
        yield text[start : match.start()]
        start = match.start()
    yield text[start:]


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
