"""A tokenizer with one token per byte: no training, the longest sequences, a baseline for comparisons."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insight.data.tokenizers import tokenizer_json as parts
from insight.data.tokenizers.base import (
    END_OF_TEXT,
    BaseTokenizer,
    EncodedBatch,
    TokenizerConfig,
    utf8_length,
)
from insight.runtime.numbers import require_number

_END_OF_TEXT_ID = 256


class ByteTokenizer(BaseTokenizer):
    """A tokenizer whose ids 0 to 255 are the bytes of the UTF-8 text; 256 ends a document."""

    vocabulary_size = _END_OF_TEXT_ID + 1
    end_of_text_id = _END_OF_TEXT_ID
    boundaries = r" \t\n\r"

    @property
    def special_tokens(self) -> dict[str, int]:
        return {END_OF_TEXT: _END_OF_TEXT_ID}

    def to_json(self) -> str:
        """The content of a byte-level BPE without merges, which gives the same ids in other libraries."""
        return json.dumps(_TOKENIZER_JSON, ensure_ascii=False)

    def text_parts(self, text: str, num_characters: int) -> Iterator[str]:
        require_number("num_characters", num_characters, 1, whole=True, at_least=1)
        for start in range(0, max(1, len(text)), num_characters):
            yield text[start : start + num_characters]

    def stream_parts(self, chunks: Iterable[str], num_characters: int) -> Iterator[str]:
        for chunk in chunks:
            yield from self.text_parts(chunk, num_characters)

    def encode_pieces(self, pieces: Sequence[str]) -> npt.NDArray[np.uint8]:
        return np.frombuffer("".join(pieces).encode("utf-8"), dtype=np.uint8)

    def _encode(self, texts: Sequence[str]) -> EncodedBatch:
        offsets = np.cumsum([0, *map(utf8_length, texts)], dtype=np.int64)
        data = "".join(texts).encode("utf-8")
        return EncodedBatch(np.frombuffer(data, dtype=np.uint8).astype(np.int64), offsets)

    def _token_bytes(self) -> list[bytes]:
        return [*(bytes([value]) for value in range(256)), b""]


@dataclass(frozen=True)
class ByteTokenizerConfig(TokenizerConfig):
    """Use one token per byte of UTF-8; nothing is trained, and texts have three times as many tokens."""

    def build(self, texts: Iterable[str]) -> ByteTokenizer:
        """Make the byte tokenizer; ``texts`` are not read."""
        return ByteTokenizer()


def is_byte_tokenizer(data: dict[str, Any]) -> bool:
    """Whether the content of a ``tokenizer.json`` is that of :class:`ByteTokenizer`."""
    return data == _TOKENIZER_JSON


_NAMES = (*parts.BYTE_CHARACTERS, END_OF_TEXT)
_TOKENIZER_JSON = parts.document(
    parts.byte_level(use_regex=False),
    parts.byte_level(use_regex=False),
    parts.bpe_model({name: index for index, name in enumerate(_NAMES)}, []),
    added=[parts.added_token(_END_OF_TEXT_ID, END_OF_TEXT)],
)
