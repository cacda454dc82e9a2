"""A tokenizer with one token per byte: no training, the longest sequences, a baseline for comparisons."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insight.data.tokenizers.base import (
    END_OF_TEXT,
    BaseTokenizer,
    EncodedBatch,
    TokenizerConfig,
)
from insight.data.tokenizers.tokenizer_json import BYTE_CHARACTERS
from insight.runtime.numbers import require_number

_END_OF_TEXT_ID = 256


class ByteTokenizer(BaseTokenizer):
    """A tokenizer whose ids 0 to 255 are the bytes of the UTF-8 text; 256 ends a document."""

    @property
    def vocabulary_size(self) -> int:
        return _END_OF_TEXT_ID + 1

    @property
    def special_tokens(self) -> dict[str, int]:
        return {END_OF_TEXT: _END_OF_TEXT_ID}

    @property
    def end_of_text_id(self) -> int:
        return _END_OF_TEXT_ID

    @property
    def boundaries(self) -> str:
        return r" \t\n\r"

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
        encoded = [text.encode("utf-8") for text in texts]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(data) for data in encoded], out=offsets[1:])
        return EncodedBatch(np.frombuffer(b"".join(encoded), dtype=np.uint8).astype(np.int64), offsets)

    def _token_bytes(self) -> list[bytes]:
        return [bytes([value]) for value in range(256)] + [b""]


@dataclass(frozen=True)
class ByteTokenizerConfig(TokenizerConfig):
    """Use one token per byte of UTF-8; nothing is trained, and texts have three times as many tokens."""

    def build(self, texts: Iterable[str]) -> ByteTokenizer:
        """Make the byte tokenizer; ``texts`` are not read."""
        return ByteTokenizer()


def is_byte_tokenizer(data: dict[str, Any]) -> bool:
    """Whether the content of a ``tokenizer.json`` is that of :class:`ByteTokenizer`."""
    return data == _TOKENIZER_JSON


_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
_TOKENIZER_JSON: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
        {
            "id": _END_OF_TEXT_ID,
            "content": END_OF_TEXT,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    ],
    "normalizer": None,
    "pre_tokenizer": _BYTE_LEVEL,
    "post_processor": None,
    "decoder": _BYTE_LEVEL,
    "model": {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {character: value for value, character in enumerate(BYTE_CHARACTERS)}
        | {END_OF_TEXT: _END_OF_TEXT_ID},
        "merges": [],
    },
}
