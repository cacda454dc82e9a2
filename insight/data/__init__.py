"""Text to token ids to batches: sources, tokenizers, the token store, sampling, the data module."""

from typing import TYPE_CHECKING

from insight.runtime.imports import lazy_exports

if TYPE_CHECKING:
    from insight.data.canaries import Canary, CanaryInjection
    from insight.data.corpora import list_corpora, read_corpus
    from insight.data.encoding.executors import DaskCluster, ExecutorConfig, InProcess, LocalProcesses
    from insight.data.loaders import LanguageModelBatch
    from insight.data.module import LanguageModelingDataModule
    from insight.data.preparation import Preparation, TextFiles
    from insight.data.sampling import (
        IGNORED_TARGET,
        Mixture,
        Packing,
        SamplingConfig,
        SequenceLengthWarmup,
        Windows,
    )
    from insight.data.sources.files import Source, expand_sources
    from insight.data.sources.texts import Texts
    from insight.data.store import TokenStore, default_cache_dir
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
    from insight.data.tokenizers.training import joint_vocabulary, separate_vocabularies

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
        "DaskCluster": "encoding.executors",
        "ExecutorConfig": "encoding.executors",
        "IGNORED_TARGET": "sampling",
        "InProcess": "encoding.executors",
        "LanguageModelBatch": "loaders",
        "LanguageModelingDataModule": "module",
        "LocalProcesses": "encoding.executors",
        "Mixture": "sampling",
        "Packing": "sampling",
        "Preparation": "preparation",
        "PretrainedTokenizer": "tokenizers",
        "PretrainedTokenizerConfig": "tokenizers",
        "SamplingConfig": "sampling",
        "SequenceLengthWarmup": "sampling",
        "Source": "sources.files",
        "TextFiles": "preparation",
        "Texts": "sources.texts",
        "TokenStore": "store",
        "TokenizerConfig": "tokenizers",
        "Windows": "sampling",
        "WordTokenizer": "tokenizers",
        "WordTokenizerConfig": "tokenizers",
        "default_cache_dir": "store",
        "expand_sources": "sources.files",
        "joint_vocabulary": "tokenizers.training",
        "list_corpora": "corpora",
        "load_tokenizer": "tokenizers",
        "read_corpus": "corpora",
        "separate_vocabularies": "tokenizers.training",
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
    "DaskCluster",
    "ExecutorConfig",
    "InProcess",
    "LanguageModelBatch",
    "LanguageModelingDataModule",
    "LocalProcesses",
    "Mixture",
    "Packing",
    "Preparation",
    "PretrainedTokenizer",
    "PretrainedTokenizerConfig",
    "SamplingConfig",
    "SequenceLengthWarmup",
    "Source",
    "TextFiles",
    "Texts",
    "TokenStore",
    "TokenizerConfig",
    "Windows",
    "WordTokenizer",
    "WordTokenizerConfig",
    "default_cache_dir",
    "expand_sources",
    "joint_vocabulary",
    "list_corpora",
    "load_tokenizer",
    "read_corpus",
    "separate_vocabularies",
]
