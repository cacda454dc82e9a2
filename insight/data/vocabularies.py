"""Vocabularies for texts of several languages: one for all, or one each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from insight.data.tokenizers import BaseTokenizer, TokenizerConfig
from insight.runtime.errors import ConfigError


def joint_vocabulary(config: TokenizerConfig, texts: Mapping[str, Iterable[str]]) -> BaseTokenizer:
    """One tokenizer trained on all texts, in their order (Sennrich et al. 2016, arXiv 1508.07909).

    Languages of one script then share names, loans and numbers, and source and target embeddings may be one
    matrix. A language with more text gets more of the vocabulary.

    Args:
        config: How to train it.
        texts: Documents by the name of their language.

    Raises:
        ConfigError: There is no text, or the tokenizer does not learn from any.
        TokenizerError: The texts do not support it.
    """
    _check(config, texts)
    return config.build(itertools.chain.from_iterable(texts.values()))


def separate_vocabularies(
    config: TokenizerConfig, texts: Mapping[str, Iterable[str]]
) -> dict[str, BaseTokenizer]:
    """A tokenizer for each text, by its name: every language gets all of a vocabulary of its own.

    Args:
        config: How to train each.
        texts: Documents by the name of their language.

    Raises:
        ConfigError: There is no text, or the tokenizer does not learn from any.
        TokenizerError: A text does not support it.
    """
    _check(config, texts)
    return {name: config.build(documents) for name, documents in texts.items()}


def _check(config: TokenizerConfig, texts: Mapping[str, Iterable[str]]) -> None:
    if not texts:
        raise ConfigError("texts is empty", "give at least one language")
    if not config.learns_from_text:
        raise ConfigError(
            f"{type(config).__name__} does not learn from text",
            "use BPETokenizerConfig or WordTokenizerConfig",
        )
