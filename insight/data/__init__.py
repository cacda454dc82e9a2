"""Text to token ids to batches: sources, tokenizers, the token store, sampling, the data module."""

from typing import TYPE_CHECKING

from insight.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from insight.data.batches import IGNORED_TARGET, LanguageModelBatch
    from insight.data.canaries import Canary, CanaryInjection
    from insight.data.corpora import list_corpora, read_corpus
    from insight.data.language_modeling import LanguageModelingDataModule
    from insight.data.preparation import Preparation, TextFiles, default_cache_dir
    from insight.data.sources import Source, expand_sources
    from insight.data.store import TokenStore
    from insight.data.tokenizers import (
        BaseTokenizer,
        BPETokenizer,
        BPETokenizerConfig,
        ByteTokenizer,
        ByteTokenizerConfig,
        PretrainedTokenizer,
        PretrainedTokenizerConfig,
        TokenizerConfig,
        WordTokenizer,
        WordTokenizerConfig,
        load_tokenizer,
    )

__getattr__ = lazy_exports(
    __name__,
    {
        "BPETokenizer": "tokenizers",
        "BPETokenizerConfig": "tokenizers",
        "BaseTokenizer": "tokenizers",
        "ByteTokenizer": "tokenizers",
        "ByteTokenizerConfig": "tokenizers",
        "Canary": "canaries",
        "CanaryInjection": "canaries",
        "IGNORED_TARGET": "batches",
        "LanguageModelBatch": "batches",
        "LanguageModelingDataModule": "language_modeling",
        "Preparation": "preparation",
        "PretrainedTokenizer": "tokenizers",
        "PretrainedTokenizerConfig": "tokenizers",
        "Source": "sources",
        "TextFiles": "preparation",
        "TokenStore": "store",
        "TokenizerConfig": "tokenizers",
        "WordTokenizer": "tokenizers",
        "WordTokenizerConfig": "tokenizers",
        "default_cache_dir": "preparation",
        "expand_sources": "sources",
        "list_corpora": "corpora",
        "load_tokenizer": "tokenizers",
        "read_corpus": "corpora",
    },
)

__all__ = [
    "IGNORED_TARGET",
    "BPETokenizer",
    "BPETokenizerConfig",
    "BaseTokenizer",
    "ByteTokenizer",
    "ByteTokenizerConfig",
    "Canary",
    "CanaryInjection",
    "LanguageModelBatch",
    "LanguageModelingDataModule",
    "Preparation",
    "PretrainedTokenizer",
    "PretrainedTokenizerConfig",
    "Source",
    "TextFiles",
    "TokenStore",
    "TokenizerConfig",
    "WordTokenizer",
    "WordTokenizerConfig",
    "default_cache_dir",
    "expand_sources",
    "list_corpora",
    "load_tokenizer",
    "read_corpus",
]
