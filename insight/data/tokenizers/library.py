"""What the tokenizers that stand on Hugging Face `tokenizers` share."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from insight.data.tokenizers.base import BaseTokenizer, EncodedBatch
from insight.data.tokenizers.token_text import token_text_of
from insight.runtime.errors import TokenizerError


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
