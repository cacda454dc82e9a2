"""Text to token ids and back: BPE, bytes, words, or somebody else's tokenizer.json."""

from insight.data.tokenizers.base import END_OF_TEXT, BaseTokenizer, EncodedBatch, TokenizerConfig
from insight.data.tokenizers.bpe import BPETokenizer, BPETokenizerConfig
from insight.data.tokenizers.byte import ByteTokenizer, ByteTokenizerConfig
from insight.data.tokenizers.pretrained import PretrainedTokenizer, PretrainedTokenizerConfig, load_tokenizer
from insight.data.tokenizers.word import WordTokenizer, WordTokenizerConfig

__all__ = [
    "END_OF_TEXT",
    "BPETokenizer",
    "BPETokenizerConfig",
    "BaseTokenizer",
    "ByteTokenizer",
    "ByteTokenizerConfig",
    "EncodedBatch",
    "PretrainedTokenizer",
    "PretrainedTokenizerConfig",
    "TokenizerConfig",
    "WordTokenizer",
    "WordTokenizerConfig",
    "load_tokenizer",
]
