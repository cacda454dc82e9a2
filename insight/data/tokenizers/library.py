"""What the tokenizers that stand on Hugging Face `tokenizers` share."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from insight.data.sources.cuts import PIECE_CHARACTERS, cut_stream, cut_text, safe_cut
from insight.data.tokenizers.base import BaseTokenizer, EncodedBatch, utf8_length
from insight.data.tokenizers.fast_encoder import ENCODING_ERRORS, FastEncoder, proven_encoder
from insight.data.tokenizers.segments import LRUCache, SegmentEncoder, segment_pattern
from insight.data.tokenizers.tokenizer_json import token_text_of
from insight.runtime.errors import TokenizerError
from insight.runtime.memory_watcher import process_watcher


class LibraryTokenizer(BaseTokenizer):
    """A tokenizer held by the `tokenizers` library (Rust).

    Args:
        tokenizer_json: The content of a ``tokenizer.json``.
        end_of_text: Name of the special token that ends a document.

    Raises:
        TokenizerError: It is damaged, or ``end_of_text`` is not in it.
    """

    def __init__(self, tokenizer_json: str, end_of_text: str) -> None:
        self._start(tokenizer_json, end_of_text)

    def _start(self, tokenizer_json: str, end_of_text: str) -> None:
        from tokenizers import Tokenizer

        try:
            self._library: Any = Tokenizer.from_str(tokenizer_json)
        except Exception as error:  # the library raises bare Exception
            raise TokenizerError(f"not a tokenizer.json ({error})", "make or fetch it again") from error
        self._library.no_truncation()
        self._library.no_padding()
        # The names of special tokens inside a text are plain text. Not part of the file: set at each start.
        self._library.encode_special_tokens = True
        self._json: str = self._library.to_str(pretty=False)
        data = json.loads(self._json)
        self._special = {
            token["content"]: int(token["id"]) for token in data["added_tokens"] if token["special"]
        }
        self._plain_added = {
            int(token["id"]): str(token["content"]) for token in data["added_tokens"] if not token["special"]
        }
        if end_of_text not in self._special:
            raise TokenizerError(f"no special token {end_of_text!r} in this tokenizer", "add it")
        self._end_of_text = end_of_text
        self._is_normalized = data.get("normalizer") is not None
        self._text_of = token_text_of(data)
        self._vocabulary: dict[str, int] = self._library.get_vocab(with_added_tokens=True)
        self._size: int = max(self._vocabulary.values()) + 1

    def __getstate__(self) -> tuple[str, str]:
        return (self._json, self._end_of_text)

    def __setstate__(self, state: tuple[str, str]) -> None:
        self._start(*state)

    @property
    def vocabulary_size(self) -> int:
        return self._size

    @property
    def special_tokens(self) -> dict[str, int]:
        return dict(self._special)

    @property
    def end_of_text_id(self) -> int:
        return self._special[self._end_of_text]

    @property
    def is_lossless(self) -> bool:
        return not self._is_normalized

    @property
    def encoder(self) -> str:
        import tokenizers

        return f"tokenizers {tokenizers.__version__}"

    def to_json(self) -> str:
        return self._json

    def _encode(self, texts: Sequence[str]) -> EncodedBatch:
        arrays = [np.array(ids, dtype=np.int64) for ids in self._encode_with_library(list(texts))]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(array) for array in arrays], out=offsets[1:])
        return EncodedBatch(np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64), offsets)

    def _encode_with_library(self, texts: list[str]) -> list[list[int]]:
        # encode_batch_fast computes no character offsets, and releases the GIL.
        with parallel_library():
            encoded = self._library.encode_batch_fast(texts, add_special_tokens=False)
        return [item.ids for item in encoded]

    def _token_bytes(self) -> list[bytes]:
        pieces = [b""] * self._size
        for token, index in self._vocabulary.items():
            pieces[index] = self._text_of(token)
        for index, content in self._plain_added.items():
            pieces[index] = content.encode("utf-8")
        for index in self._special.values():
            pieces[index] = b""
        return pieces


@contextlib.contextmanager
def parallel_library() -> Iterator[None]:
    """Let the library use every core inside the block, whatever ``TOKENIZERS_PARALLELISM`` says outside.

    The variable is off in programs that fork data workers; encoding and training happen before any fork.
    """
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "true"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)  # another thread may have been here
        else:
            os.environ[name] = before


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
            if len(text) <= PIECE_CHARACTERS:
                pieces.append(text)
            else:
                pieces += self.text_parts(text, PIECE_CHARACTERS)
            first_piece.append(len(pieces))
        ids, piece_offsets = self._segments.encode(pieces)
        return EncodedBatch(ids, piece_offsets[first_piece])


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
