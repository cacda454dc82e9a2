"""Text to token ids and back, losslessly: BPE, bytes, or any byte-level tokenizer.json."""

from insight.data.tokenizers.base import END_OF_TEXT, BaseTokenizer, EncodedBatch, TokenizerConfig
from insight.data.tokenizers.bpe import BPETokenizer, BPETokenizerConfig
from insight.data.tokenizers.byte import ByteTokenizer, ByteTokenizerConfig
from insight.data.tokenizers.loading import load_tokenizer
from insight.data.tokenizers.pretrained import PretrainedTokenizer, PretrainedTokenizerConfig

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
    "load_tokenizer",
]
