"""Byte-level byte-pair encoding (Sennrich et al. 2016; on bytes: GPT-2, Radford et al. 2019)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from insight.data.tokenizers.base import END_OF_TEXT, TokenizerConfig
from insight.data.tokenizers.library import CountedPieces, SegmentedTokenizer, parallel_library
from insight.data.tokenizers.tokenizer_json import (
    BYTE_CHARACTERS,
    NORMALIZATIONS,
    PRE_TOKENIZERS,
    pre_tokenizer_of,
)
from insight.runtime.errors import ConfigError, TokenizerError, nearest

_NUM_BYTES = 256


class BPETokenizer(SegmentedTokenizer):
    """Byte-level BPE that this project trained, or one of the same form; ``<|endoftext|>`` ends a document.

    Args:
        tokenizer_json: The content of a ``tokenizer.json`` that this class wrote.

    Raises:
        TokenizerError: It is damaged.
    """

    def __init__(self, tokenizer_json: str) -> None:
        super().__init__(tokenizer_json, END_OF_TEXT)

    def _boundaries(self, data: dict[str, Any]) -> str | None:
        rule = pre_tokenizer_of(data)
        return rule.boundaries if rule else None


@dataclass(frozen=True)
class BPETokenizerConfig(TokenizerConfig):
    """Train a byte-level BPE tokenizer on the training text.

    Args:
        vocabulary_size: Number of tokens, 256 bytes and ``<|endoftext|>`` among them. Small vocabularies
            suit small networks; 2048 gives about 3 bytes a token on English.
        min_frequency: A pair of tokens must occur this often to become one token.
        pre_tokenizer: What may become one token: ``gpt2`` (words, numbers and punctuation apart),
            ``single_digits`` (as gpt2, each digit on its own) or ``gpt4`` (numbers in threes, line breaks
            with the punctuation before them).
        normalization: ``none``; or ``nfc``, ``nfkc`` (Unicode, UAX 15) or ``lowercase``, after which the text
            that comes back is the normalized one.
        special_tokens: Names of further tokens that stand for no text, such as the marks of a dialogue.
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
            raise ConfigError(
                f"vocabulary_size={self.vocabulary_size}: it has to hold {_NUM_BYTES} bytes and {special}",
                f"use at least {smallest}",
            )
        if self.min_frequency < 1:
            raise ConfigError(
                f"min_frequency={self.min_frequency}: a pair must occur at least once", "use 1 or more"
            )

    def to_dict(self) -> dict[str, Any]:
        """As of every component, without the later options where they have no effect.

        What is made of these values, such as the name under which a trained tokenizer is cached, must not
        change because an option was added.
        """
        plain = super().to_dict()
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in ("pre_tokenizer", "normalization", "special_tokens"):
            if getattr(self, name) == defaults[name]:
                del plain["init_args"][name]
        return plain

    def build(self, texts: Iterable[str]) -> BPETokenizer:
        """Train on ``texts``; the same texts give the same tokenizer on every machine.

        Raises:
            TokenizerError: The texts are empty, or support fewer than ``vocabulary_size`` tokens.
        """
        from tokenizers import Tokenizer, trainers

        rule = PRE_TOKENIZERS[self.pre_tokenizer]
        library: Any = Tokenizer.from_str(json.dumps(self._untrained(rule.to_json()[0])))
        trainer: Any = trainers.BpeTrainer(
            vocab_size=self.vocabulary_size,
            min_frequency=self.min_frequency,
            special_tokens=[END_OF_TEXT, *self.special_tokens],
            initial_alphabet=list(BYTE_CHARACTERS),
            show_progress=False,
        )
        counted = CountedPieces(texts, rule.boundaries)
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

    def _untrained(self, pre_tokenizer: dict[str, Any]) -> dict[str, Any]:
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": NORMALIZATIONS[self.normalization],
            "pre_tokenizer": pre_tokenizer,
            "post_processor": None,
            "decoder": {
                "type": "ByteLevel",
                "add_prefix_space": True,
                "trim_offsets": True,
                "use_regex": True,
            },
            "model": {"type": "BPE", "vocab": {}, "merges": []},
        }


def is_bpe_tokenizer(data: dict[str, Any]) -> bool:
    """Whether the content of a ``tokenizer.json`` is what :class:`BPETokenizer` would write."""
    added, model = data.get("added_tokens"), data.get("model")
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        return False
    return (
        pre_tokenizer_of(data) is not None
        and data.get("normalizer") in NORMALIZATIONS.values()
        and isinstance(model, dict)
        and model.get("type") == "BPE"
        and END_OF_TEXT in [token.get("content") for token in added]
        and all(token.get("special") is True for token in added)
        and all(character in model.get("vocab", {}) for character in BYTE_CHARACTERS)
    )


def _check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    names = list(choices)
    if value not in names:
        match = nearest(str(value), names)
        remedy = f"did you mean {match!r}?" if match else f"choose one of {', '.join(names)}"
        raise ConfigError(f"{name}={value!r} is unknown", remedy)


def _check_special_tokens(names: tuple[str, ...]) -> None:
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"special_tokens={list(names)}: {name!r} is no name", "use names like <|user|>")
        if name == END_OF_TEXT or name in names[:index]:
            raise ConfigError(
                f"special_tokens={list(names)}: {name} is there already", "name each token once"
            )
        if name in BYTE_CHARACTERS:
            raise ConfigError(
                f"special_tokens={list(names)}: {name!r} stands for a byte", "use names like <|user|>"
            )
