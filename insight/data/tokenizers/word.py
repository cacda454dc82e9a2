"""A tokenizer with one token per word: for teaching, and as a baseline for subwords."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from insight.data.tokenizers.base import END_OF_TEXT, TokenizerConfig
from insight.data.tokenizers.library import LibraryTokenizer, TrainingPieces, trained
from insight.data.tokenizers.tokenizer_json import PRE_TOKENIZERS, added_tokens, document, split
from insight.runtime.errors import ConfigError, TokenizerError
from insight.runtime.numbers import require_number

UNKNOWN = "<|unknown|>"
"""Name of the token for all words outside the vocabulary."""


_RULE = PRE_TOKENIZERS["gpt2"]
_PRE_TOKENIZER = split(_RULE.pattern)


class WordTokenizer(LibraryTokenizer):
    """A tokenizer with one token for each of the most frequent words; every other word is ``<|unknown|>``.

    Words are those of GPT-2's pre-tokenizer: a word includes the space before it; punctuation and other white
    space are separate. Known text is decoded exactly; an unknown word is lost and counts no bytes. So the
    bits per byte of a model over text with unknown words omit the cost of those words and are not comparable
    with those of a lossless tokenizer: report the fraction of unknown words with them.
    """

    is_lossless = False

    def __init__(self, tokenizer_json: str) -> None:
        super().__init__(tokenizer_json, END_OF_TEXT)

    @property
    def unknown_id(self) -> int:
        return self._special[UNKNOWN]

    def _boundaries(self, data: dict[str, Any]) -> str:
        return _RULE.boundaries

    def _token_bytes(self) -> list[bytes]:
        pieces = [b""] * self.vocabulary_size
        for word, index in self._vocabulary.items():
            pieces[index] = b"" if word in self._special else word.encode("utf-8")
        return pieces


@dataclass(frozen=True)
class WordTokenizerConfig(TokenizerConfig):
    """Use the most frequent words of the training text as tokens.

    Args:
        vocabulary_size: Largest number of tokens, including ``<|endoftext|>`` and ``<|unknown|>``.
        min_frequency: Least number of occurrences of a word that becomes a token.
        lowercase: Whether all text is converted to lower case first.
    """

    learns_from_text: ClassVar[bool] = True

    vocabulary_size: int = 10_000
    min_frequency: int = 2
    lowercase: bool = False

    def __post_init__(self) -> None:
        if self.vocabulary_size < 3:
            problem = f"it has to hold {END_OF_TEXT}, {UNKNOWN} and a word"
            raise ConfigError(problem, "use at least 3", option="vocabulary_size", value=self.vocabulary_size)
        require_number("min_frequency", self.min_frequency, 2, whole=True, at_least=1)

    def build(self, texts: Iterable[str]) -> WordTokenizer:
        """Count the words of ``texts``; the same texts give the same tokenizer on every machine."""
        model = {"type": "WordLevel", "vocab": {UNKNOWN: 0}, "unk_token": UNKNOWN}
        normalizer = {"type": "Lowercase"} if self.lowercase else None
        untrained = document(_PRE_TOKENIZER, {"type": "Fuse"}, model, normalizer=normalizer)
        options = {"vocab_size": self.vocabulary_size, "special_tokens": [END_OF_TEXT, UNKNOWN]}
        options["min_frequency"] = self.min_frequency
        pieces = TrainingPieces(texts, _RULE.boundaries)
        tokenizer = WordTokenizer(trained(untrained, "WordLevelTrainer", pieces, options))
        if tokenizer.vocabulary_size <= 2:
            problem = "no word of the text occurs that often"
            remedy = "use a smaller number, or give more text"
            raise TokenizerError(problem, remedy, option="min_frequency", value=self.min_frequency)
        return tokenizer


def is_word_tokenizer(data: dict[str, Any]) -> bool:
    """Whether the content of a ``tokenizer.json`` was written by :class:`WordTokenizer`."""
    model = data.get("model")
    return (
        isinstance(model, dict)
        and model.get("type") == "WordLevel"
        and model.get("unk_token") == UNKNOWN
        and data.get("pre_tokenizer") == _PRE_TOKENIZER
        and [token.get("content") for token in added_tokens(data)] == [END_OF_TEXT, UNKNOWN]
    )
