"""Byte-level byte-pair encoding (Sennrich et al. 2016; on bytes: GPT-2, Radford et al. 2019)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from insight.data.tokenizers import tokenizer_json as parts
from insight.data.tokenizers.base import END_OF_TEXT, TokenizerConfig
from insight.data.tokenizers.library import LibraryTokenizer, TrainingPieces, trained
from insight.data.tokenizers.tokenizer_json import BYTE_CHARACTERS, NORMALIZATIONS, PRE_TOKENIZERS
from insight.runtime.errors import ConfigError, TokenizerError, nearest
from insight.runtime.numbers import require_number

_NUM_BYTES = 256


class BPETokenizer(LibraryTokenizer):
    """A byte-level BPE tokenizer of the form that Insight trains; ``<|endoftext|>`` ends a document."""

    def __init__(self, tokenizer_json: str) -> None:
        super().__init__(tokenizer_json, END_OF_TEXT)


@dataclass(frozen=True)
class BPETokenizerConfig(TokenizerConfig):
    """Train a byte-level BPE tokenizer on the training text.

    Args:
        vocabulary_size: Number of tokens, including 256 bytes and ``<|endoftext|>``. Small vocabularies suit
            small networks; 2048 gives about 3 bytes per token on English.
        min_frequency: Least number of occurrences of a pair of tokens that becomes one token.
        pre_tokenizer: The rule that cuts text into words, across which no token extends: ``gpt2`` (words,
            numbers and punctuation apart), ``single_digits`` (as gpt2, each digit on its own) or ``gpt4``
            (numbers in threes, line breaks with the punctuation before them).
        normalization: ``none``, or ``nfc``, ``nfkc`` (Unicode, UAX 15) or ``lowercase``, with which decoding
            returns the normalized text.
        special_tokens: Names of further tokens that stand for no text, such as the marks of a dialogue. The
            name inside a text stays plain text.
    """

    learns_from_text: ClassVar[bool] = True

    vocabulary_size: int = 2048
    min_frequency: int = 2
    pre_tokenizer: str = "gpt2"
    normalization: str = "none"
    special_tokens: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.special_tokens, list):
            object.__setattr__(self, "special_tokens", tuple(self.special_tokens))
        _check_choice("pre_tokenizer", self.pre_tokenizer, PRE_TOKENIZERS)
        _check_choice("normalization", self.normalization, NORMALIZATIONS)
        _check_special_tokens(self.special_tokens)
        smallest = _NUM_BYTES + 1 + len(self.special_tokens)
        if self.vocabulary_size < smallest:
            special = ", ".join((END_OF_TEXT, *self.special_tokens))
            problem, remedy = f"it has to hold {_NUM_BYTES} bytes and {special}", f"use at least {smallest}"
            raise ConfigError(problem, remedy, option="vocabulary_size", value=self.vocabulary_size)
        require_number("min_frequency", self.min_frequency, 2, whole=True, at_least=1)

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON, without newer options that have their default.

        The cache key of a trained tokenizer contains these values, so a new option must not change them.
        """
        plain = super().to_dict()
        for name in ("pre_tokenizer", "normalization", "special_tokens"):
            if getattr(self, name) == getattr(BPETokenizerConfig, name):
                del plain["init_args"][name]
        return plain

    def build(self, texts: Iterable[str]) -> BPETokenizer:
        """Train on ``texts``, which must support ``vocabulary_size`` tokens.

        The same texts give the same tokenizer on every machine.
        """
        rule = PRE_TOKENIZERS[self.pre_tokenizer]
        decoder = parts.byte_level(use_regex=True) | {"add_prefix_space": True}
        model, normalizer = parts.bpe_model({}, []), NORMALIZATIONS[self.normalization]
        untrained = parts.document(rule.to_json()[0], decoder, model, normalizer=normalizer)
        # Merges may form the name of a special token that is one word, such as ###. Those merges and the
        # tokens built from the name are removed, so further tokens are trained to replace them.
        removes_tokens = any(parts.is_one_word(name, rule) for name in self.special_tokens)
        options = {
            "vocab_size": self.vocabulary_size * (2 if removes_tokens else 1),
            "min_frequency": self.min_frequency,
            "special_tokens": [END_OF_TEXT, *self.special_tokens],
            "initial_alphabet": list(BYTE_CHARACTERS),
        }
        pieces = TrainingPieces(texts, rule.boundaries, divides_words=True)
        content = trained(untrained, "BpeTrainer", pieces, options)
        if removes_tokens:
            content = _without_special_words(json.loads(content), self.vocabulary_size)
        tokenizer = BPETokenizer(content)
        size = tokenizer.vocabulary_size
        if size < self.vocabulary_size:
            text = f"{pieces.num_bytes:,} bytes of text with min_frequency={self.min_frequency}"
            problem, remedy = f"{text} support only {size} tokens", f"use {size}, or give more text"
            raise TokenizerError(problem, remedy, option="vocabulary_size", value=self.vocabulary_size)
        return tokenizer


def _without_special_words(data: dict[str, Any], vocabulary_size: int) -> str:
    """The oldest ``vocabulary_size`` tokens, without those built from the name of a special token."""
    model, special = data["model"], parts.special_names(data)
    made, merges = set(BYTE_CHARACTERS), []
    for left, right in parts.merge_pairs(model):
        if {left, right} <= made and left + right not in special:
            made.add(left + right)
            merges.append([left, right])
    by_age = sorted(model["vocab"], key=model["vocab"].__getitem__)
    kept = [token for token in by_age if token in special or token in made][:vocabulary_size]
    model["vocab"] = {token: index for index, token in enumerate(kept)}
    model["merges"] = [merge for merge in merges if "".join(merge) in model["vocab"]]
    return json.dumps(data, ensure_ascii=False)


def is_bpe_tokenizer(data: dict[str, Any]) -> bool:
    """Whether the content of a ``tokenizer.json`` has the form that :class:`BPETokenizer` writes."""
    added, model = parts.added_tokens(data), data.get("model")
    return (
        parts.pre_tokenizer_of(data) is not None
        and data.get("normalizer") in NORMALIZATIONS.values()
        and isinstance(model, dict)
        and model.get("type") == "BPE"
        and END_OF_TEXT in [token.get("content") for token in added]
        and all(token.get("special") is True for token in added)
        and not parts.losses_of(data)
    )


def _check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    names = list(choices)
    if value not in names:
        match = nearest(str(value), names)
        remedy = f"did you mean {match!r}?" if match else f"choose one of {', '.join(names)}"
        raise ConfigError("is unknown", remedy, option=name, value=value)


def _check_special_tokens(names: tuple[str, ...]) -> None:
    for index, name in enumerate(names):
        problem, remedy = "", "use names like <|user|>"
        if not isinstance(name, str) or not name.strip():
            problem = f"{name!r} is no name"
        elif name == END_OF_TEXT or name in names[:index]:
            problem, remedy = f"{name} is there already", "name each token once"
        elif name in BYTE_CHARACTERS:
            problem = f"{name!r} stands for a byte"
        if problem:
            raise ConfigError(problem, remedy, option="special_tokens", value=list(names))
