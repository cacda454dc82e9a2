"""Text to token ids to batches: sources, tokenizers, the token store, sampling, the data module."""

from typing import TYPE_CHECKING

from insight.runtime.imports import lazy_exports

if TYPE_CHECKING:
    from insight.data.canaries import Canary as Canary
    from insight.data.canaries import CanaryInjection as CanaryInjection
    from insight.data.canaries import CanaryPairInjection as CanaryPairInjection
    from insight.data.cleaning import PairFilters as PairFilters
    from insight.data.corpora import list_corpora as list_corpora
    from insight.data.corpora import read_corpus as read_corpus
    from insight.data.encoding.executors import DaskCluster as DaskCluster
    from insight.data.encoding.executors import ExecutorConfig as ExecutorConfig
    from insight.data.encoding.executors import InProcess as InProcess
    from insight.data.encoding.executors import LocalProcesses as LocalProcesses
    from insight.data.loaders import LanguageModelBatch as LanguageModelBatch
    from insight.data.module import LanguageModelingDataModule as LanguageModelingDataModule
    from insight.data.pairs import TranslationBatch as TranslationBatch
    from insight.data.preparation import Preparation as Preparation
    from insight.data.preparation import TextFiles as TextFiles
    from insight.data.sampling import IGNORED_TARGET as IGNORED_TARGET
    from insight.data.sampling import Mixture as Mixture
    from insight.data.sampling import Packing as Packing
    from insight.data.sampling import SamplingConfig as SamplingConfig
    from insight.data.sampling import SequenceLengthWarmup as SequenceLengthWarmup
    from insight.data.sampling import Windows as Windows
    from insight.data.sources.files import expand_sources as expand_sources
    from insight.data.sources.formats import Source as Source
    from insight.data.sources.formats import Texts as Texts
    from insight.data.store import TokenStore as TokenStore
    from insight.data.store import default_cache_dir as default_cache_dir
    from insight.data.tokenizers import BaseTokenizer as BaseTokenizer
    from insight.data.tokenizers import BPETokenizer as BPETokenizer
    from insight.data.tokenizers import BPETokenizerConfig as BPETokenizerConfig
    from insight.data.tokenizers import ByteTokenizer as ByteTokenizer
    from insight.data.tokenizers import ByteTokenizerConfig as ByteTokenizerConfig
    from insight.data.tokenizers import PretrainedTokenizer as PretrainedTokenizer
    from insight.data.tokenizers import PretrainedTokenizerConfig as PretrainedTokenizerConfig
    from insight.data.tokenizers import TokenizerConfig as TokenizerConfig
    from insight.data.tokenizers import WordTokenizer as WordTokenizer
    from insight.data.tokenizers import WordTokenizerConfig as WordTokenizerConfig
    from insight.data.tokenizers import load_tokenizer as load_tokenizer
    from insight.data.tokenizers.training import joint_vocabulary as joint_vocabulary
    from insight.data.tokenizers.training import separate_vocabularies as separate_vocabularies
    from insight.data.translation import TranslationDataModule as TranslationDataModule

__getattr__, __all__ = lazy_exports(__name__)
