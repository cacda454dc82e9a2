"""Byte-level byte-pair encoding (Sennrich et al. 2016; on bytes: GPT-2, Radford et al. 2019)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from insight.data.tokenizers.base import END_OF_TEXT, TokenizerConfig, utf8_length
from insight.data.tokenizers.byte_alphabet import BYTE_CHARACTERS
from insight.data.tokenizers.library import LibraryTokenizer, parallel_library
from insight.runtime.errors import ConfigError, TokenizerError

_SMALLEST_VOCABULARY = 257
# Long texts are encoded in pieces of about this many characters: in parallel, and in bounded memory
# (the library needs some hundred bytes a token).
_PIECE_CHARACTERS = 1 << 14
# GPT-2's pre-tokenizer never joins a character that is not white space to white space that follows it, so a
# text may be cut there without changing any id.
_SAFE_CUT = re.compile(r"(?<=\S)(?=[ \n])")


class BPETokenizer(LibraryTokenizer):
    """Byte-level BPE with GPT-2's pre-tokenizer; ``<|endoftext|>`` is its only special token.

    Args:
        tokenizer_json: The content of a ``tokenizer.json`` that this class wrote.

    Raises:
        TokenizerError: It is damaged.
    """

    def __init__(self, tokenizer_json: str) -> None:
        super().__init__(tokenizer_json, END_OF_TEXT)

    def _pieces_of(self, text: str) -> list[str]:
        return list(_cut(text))


@dataclass(frozen=True)
class BPETokenizerConfig(TokenizerConfig):
    """Train a byte-level BPE tokenizer on the training text.

    Args:
        vocabulary_size: Number of tokens, 256 bytes and ``<|endoftext|>`` among them. Small vocabularies
            suit small networks; 2048 gives about 3 bytes a token on English.
        min_frequency: A pair of tokens must occur this often to become one token.
    """

    learns_from_text: ClassVar[bool] = True

    vocabulary_size: int = 2048
    min_frequency: int = 2

    def __post_init__(self) -> None:
        if self.vocabulary_size < _SMALLEST_VOCABULARY:
            raise ConfigError(
                f"vocabulary_size={self.vocabulary_size}: it has to hold 256 bytes and {END_OF_TEXT}",
                f"use at least {_SMALLEST_VOCABULARY}",
            )
        if self.min_frequency < 1:
            raise ConfigError(
                f"min_frequency={self.min_frequency}: a pair must occur at least once", "use 1 or more"
            )

    def build(self, texts: Iterable[str]) -> BPETokenizer:
        """Train on ``texts``; the same texts give the same tokenizer on every machine.

        Raises:
            TokenizerError: The texts are empty, or support fewer than ``vocabulary_size`` tokens.
        """
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        library: Any = Tokenizer(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=self.vocabulary_size,
            min_frequency=self.min_frequency,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=list(BYTE_CHARACTERS),
            show_progress=False,
        )
        counted = _CountedPieces(texts)
        with parallel_library():
            library.train_from_iterator(counted, trainer)
        if counted.num_bytes == 0:
            raise TokenizerError("no text to train the tokenizer on", "give files with text")
        reached = int(library.get_vocab_size())
        if reached < self.vocabulary_size:
            raise TokenizerError(
                f"vocabulary_size={self.vocabulary_size}: {counted.num_bytes:,} bytes of text with "
                f"min_frequency={self.min_frequency} support only {reached} tokens",
                f"use vocabulary_size={reached} or give more text",
            )
        return BPETokenizer(library.to_str(pretty=False))


def is_bpe_tokenizer(data: dict[str, Any]) -> bool:
    """Whether the content of a ``tokenizer.json`` is what :class:`BPETokenizer` would write."""
    added, model = data.get("added_tokens"), data.get("model")
    return (
        data.get("pre_tokenizer") == _PRE_TOKENIZER
        and data.get("normalizer") is None
        and isinstance(model, dict)
        and model.get("type") == "BPE"
        and isinstance(added, list)
        and [(token.get("content"), token.get("special")) for token in added if isinstance(token, dict)]
        == [(END_OF_TEXT, True)]
    )


_PRE_TOKENIZER = json.loads(
    '{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}'
)


class _CountedPieces:
    """The texts in pieces for the trainer, which counts words in parallel by piece; counts their bytes."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.num_bytes = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.num_bytes += utf8_length(text)
            yield from _cut(text)


def _cut(text: str, size: int = _PIECE_CHARACTERS) -> Iterator[str]:
    """``text`` in pieces of at least ``size`` characters, cut only where no id changes."""
    start = 0
    while len(text) - start > 2 * size:
        match = _SAFE_CUT.search(text, start + size)
        if match is None:
            break
        yield text[start : match.start()]
        start = match.start()
    yield text[start:]
